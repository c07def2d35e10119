import shutil
from pathlib import Path

import pytest
from tiny_packed import quantized, tiny_model

from mpq.checkpoint.packed import save_packed


@pytest.fixture(scope="session")
def packed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed folder that nobody changes."""
    folder = tmp_path_factory.mktemp("packed") / "packed"
    save_packed(folder, quantized(tiny_model("wav2vec2_group")), coding="none")
    return folder


@pytest.fixture
def packed(packed_once: Path, tmp_path: Path) -> Path:
    """A packed folder of a tiny wav2vec2, without a processor, to do anything with."""
    return Path(shutil.copytree(packed_once, tmp_path / "packed"))
