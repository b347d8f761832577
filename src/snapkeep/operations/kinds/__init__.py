"""One file for each kind of operation."""
