"""CTC speech recognition models of transformers: availability, loading, logits and loss."""
