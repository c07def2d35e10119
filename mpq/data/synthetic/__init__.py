"""The embedded corpus: sentences from our own grammar, synthesized by eSpeak NG."""
