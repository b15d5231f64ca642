"""Text before any model reads it: passages and writing systems."""
