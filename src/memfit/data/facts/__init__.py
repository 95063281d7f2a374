"""What is known of a set of images once all of it was looked at."""
