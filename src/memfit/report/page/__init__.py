"""The page: what it shows as plain data, and one HTML file that holds all of it."""
