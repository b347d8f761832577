"""Nouns, capabilities and errors: pure data, no input or output, no third-party import."""
