"""How fast the reranker is, beside others, beside the machine's own limit, and over HTTP."""
