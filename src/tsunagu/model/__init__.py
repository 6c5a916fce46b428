"""Values: what networks, containers and images are. No I/O, no clock, no randomness; imports nothing of ours."""
