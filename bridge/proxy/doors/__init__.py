"""Retrieval in the shapes that language models and their libraries speak."""
