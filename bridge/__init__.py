"""Neural retrieval beside the search that a cluster already does; docs/explanation/architecture.md maps the code."""

__version__ = "0.1.0"
