"""Measures whether retrieval got better: questions with known answers, measures, confidence."""
