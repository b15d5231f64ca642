"""Measures whether retrieval got better: judged queries, measures, confidence intervals."""
