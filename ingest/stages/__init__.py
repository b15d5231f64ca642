"""What happens to a batch of documents: skip unchanged, expand, embed, stamp."""
