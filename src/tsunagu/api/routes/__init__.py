"""One module of handlers for each group of endpoints."""
