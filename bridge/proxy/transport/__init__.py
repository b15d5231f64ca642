"""Bytes to and from the cluster: connections, headers, bodies, and refusals."""
