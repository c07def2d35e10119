"""Transcription, word error rates and their significance."""
