"""Speech corpora: the LibriSpeech layout reader and the embedded synthetic corpus."""
