"""Tsunagu: a Docker-compatible container engine whose heart is how containers talk to each other."""

__version__ = "0.1.0"
