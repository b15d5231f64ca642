"""The embedded and the remote cluster: all that knows the engines' API."""
