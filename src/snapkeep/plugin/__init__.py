"""What a plug-in promises (roles) and is given (HTTP session, settings, registry)."""
