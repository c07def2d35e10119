import os
import subprocess
import sys

import pytest
import torch

import mpq  # noqa: F401  (it makes torchaudio importable)

RESAMPLE = """
import sys
import mpq
assert "torch" not in sys.modules and "torchaudio" not in sys.modules, "import mpq must be cheap"
import torch, torchaudio
wave = torch.sin(torch.arange(8_000) * 0.1)
assert torchaudio.functional.resample(wave, 8_000, 16_000).shape == (16_000,)
assert torchaudio.datasets.LIBRISPEECH
from transformers import Wav2Vec2ForCTC
print("fine")
"""


def test_a_fresh_process_can_resample():
    """And can import transformers' speech models, which import torchaudio where it is installed."""
    done = subprocess.run([sys.executable, "-c", RESAMPLE], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "fine", done.stderr


def test_it_is_registered_once():
    from mpq import import_hooks

    before = list(sys.meta_path)
    import_hooks.import_torchaudio_without_cuda()
    assert sys.meta_path == before


@pytest.mark.skipif(torch.version.cuda is not None, reason="on a CUDA build torchaudio's own extension is used")
def test_what_needs_the_extension_says_so():
    import torchaudio

    with pytest.raises(RuntimeError, match="forced_align needs torchaudio's extension"):
        torchaudio.functional.forced_align(torch.zeros(1, 4, 3), torch.ones(1, 2, dtype=torch.int32))


def test_a_cuda_build_is_left_alone(monkeypatch):
    from mpq.import_hooks import _MissingExtension

    finder = _MissingExtension()
    assert finder.find_spec("torchaudio", None) is None
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert finder.find_spec("torchaudio._extension", None) is None


def test_a_notebooks_backend_is_dropped_where_its_package_is_missing(monkeypatch):
    """Else Lightning, which imports matplotlib, can't be imported in a program that the notebook starts."""
    from mpq.import_hooks import drop_missing_backend

    for backend, stays in (("module://no_such_package.backend", False), ("module://json.backend", True), ("agg", True)):
        monkeypatch.setenv("MPLBACKEND", backend)
        drop_missing_backend()
        assert (os.environ.get("MPLBACKEND") == backend) is stays, backend
