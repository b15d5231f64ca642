"""Bulk writes: actions, answers, retries, rate limits and backpressure."""
