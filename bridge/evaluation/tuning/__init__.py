"""Finds the best search settings for an index, from one set of answers per judged query."""
