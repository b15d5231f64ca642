"""The proxy's process: listeners, routing, administration, metrics, certificates and traces."""
