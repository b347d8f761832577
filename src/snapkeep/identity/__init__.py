"""Who somebody is, and what he was granted."""
