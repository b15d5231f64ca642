"""Enrich what an application writes, soon after it was written."""
