"""The server: REST over the catalog and the operations."""
