"""A study as text, figures and page."""
