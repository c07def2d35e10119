"""The embedded corpus: sentences of our own grammar, spoken by eSpeak NG."""
