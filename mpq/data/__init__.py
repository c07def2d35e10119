"""Speech corpora: recordings in LibriSpeech's folder layout, and the embedded synthetic corpus."""
