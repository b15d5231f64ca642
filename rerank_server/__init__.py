"""The sidecar: scores query-passage pairs and embeds queries over HTTP."""
