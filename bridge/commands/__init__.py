"""One module per command; `bridge.cli` loads each when it is called."""
