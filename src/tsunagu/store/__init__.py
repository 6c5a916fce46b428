"""What survives a restart: SQLite rows and content-addressed blobs. Imports `model` only."""
