"""The procedural world of the tiny experiment."""
