"""The name server process: no privileges, no state of its own. Imports model and wire only, and starts in
milliseconds."""
