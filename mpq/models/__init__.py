"""Speech recognition models of transformers (CTC, Whisper): availability, loading, logits and loss."""
