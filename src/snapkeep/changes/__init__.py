"""Change lists: stored in blocks, normalised, summarised, streamed."""
