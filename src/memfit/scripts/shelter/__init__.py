"""Where a script can do no harm: what it writes goes to a temporary place and reads back."""
