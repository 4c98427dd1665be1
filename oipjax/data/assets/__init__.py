"""Data that travels with the package; see NOTICE.md for its terms."""
