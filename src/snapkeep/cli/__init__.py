"""The command line: speaks REST only."""
