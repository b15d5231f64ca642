"""Searches for the settings that serve an index best, on what legs and models said once of each query."""
