"""The same stages on several machines, with Ray."""
