"""Results as people read them: formatting only, no analysis."""
