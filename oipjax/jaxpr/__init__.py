"""Any pure function as a flat list of steps."""
