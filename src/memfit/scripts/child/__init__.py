"""Inside the child process: the script runs, is watched, and ends by itself."""
