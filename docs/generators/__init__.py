"""One file for each page of the reference, and two for what they share: `docs/generate.py` writes what they return."""
