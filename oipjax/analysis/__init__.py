"""What patterns and codes tell."""
