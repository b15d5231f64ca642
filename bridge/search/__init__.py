"""Pure search: a search body in, a ranking out."""
