"""Orchestration: decide, act, record, publish. One event loop owns the `World`."""
