"""What differs by file system: one role (`kind.py`), and one module for each that plays it."""
