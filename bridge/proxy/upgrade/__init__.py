"""Upgrade a search: plan it, rank it, and write the answer that the application expects."""
