"""The document side: sources, expansion, embedding, bulk writes, accounting."""
