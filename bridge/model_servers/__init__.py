"""Clients of servers that embed, rerank or generate: our sidecar, TEI, Cohere, Jina, OpenAI."""
