"""Pure decisions over values of `model`: addresses, names, reachability. No I/O, no clock, no randomness."""
