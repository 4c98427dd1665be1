"""Files that are whole or absent, resumable and locked."""
