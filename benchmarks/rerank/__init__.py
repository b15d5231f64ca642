"""`scripts/bench rerank`: passages a second, beside other rerankers and beside the machine's limit."""
