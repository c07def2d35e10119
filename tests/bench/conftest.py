"""A model of a few thousand parameters in the place of those in conf/model."""

import pytest
from tiny_speech import ARCHITECTURE

from mpq.models import loading


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    """Whatever model a bench is asked for."""
    for module in ("models", "train_steps", "peers"):
        monkeypatch.setattr(f"mpq.bench.{module}.load_model", lambda name: loading.from_scratch(ARCHITECTURE, seed=0))
