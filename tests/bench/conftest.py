"""One thread, and a model of a few thousand parameters in the place of those in conf/model."""

import pytest
import torch
from tiny_speech import ARCHITECTURE

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)
from mpq.models import ctc


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    """Whatever model a bench is asked for."""
    for module in ("models", "train_steps", "peers"):
        monkeypatch.setattr(f"mpq.bench.{module}.load_model", lambda name: ctc.from_scratch(ARCHITECTURE, seed=0))
