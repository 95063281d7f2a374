"""What a child is asked and what it answers, and the batch in a script's arguments."""
