"""Plans, models and cards as people read them: only formatting, no analysis."""
