"""The test images: stand-ins for what users pull, built from this machine's Debian packages and kept as archives."""
