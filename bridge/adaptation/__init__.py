"""Models that are adapted to one index, from its own documents, and kept only where they help there."""
