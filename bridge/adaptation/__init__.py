"""Adapts the models of one index to its own documents, and installs them only if they improve its searches."""
