"""What to climb: scores of one image."""
