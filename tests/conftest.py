"""What tests of training and of the whole pipeline share: a few seconds of made-up speech and a very small model."""

import os

import numpy as np
import pytest
from tiny_speech import ARCHITECTURE, write_speech

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory):
    """Twelve utterances to train on and four to evaluate."""
    root = tmp_path_factory.mktemp("speech") / "Mini-Speech"
    return write_speech(root, {"train": 12, "clean": 4}, np.random.default_rng())


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A random model that transformers saved, with its processor."""
    import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)
    from mpq.models import ctc

    folder = tmp_path_factory.mktemp("model") / "smallest"
    model, processor = ctc.from_scratch(ARCHITECTURE, seed=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
