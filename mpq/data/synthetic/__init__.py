"""The embedded corpus: sentences from our own grammar, spoken by eSpeak NG."""

from mpq.data.synthetic.corpus import make

__all__ = ["make"]
