"""One folder for each system that Snapkeep speaks to."""
