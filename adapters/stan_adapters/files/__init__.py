"""Files that somebody else wrote."""
