"""Speech recognition models: loading, losses, transcription."""
