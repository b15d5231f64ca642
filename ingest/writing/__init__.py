"""Bulk writes: actions, answers, retries and rate limits."""
