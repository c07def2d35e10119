"""The record of a run: its result, transcripts, time and provenance."""
