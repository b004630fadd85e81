"""Model definitions: weights in, embeddings and logits out. They hold no stream state."""
