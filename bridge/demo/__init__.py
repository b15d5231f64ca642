"""The demo: the bridge over the documentation of the running Python's standard library."""
