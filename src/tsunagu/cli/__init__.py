"""The Docker-compatible command line: a client of the API, standard library only."""
