import pytest
import torch

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)


@pytest.fixture(autouse=True)
def fresh_randomness():
    """New random inputs at each run; a failing test shows the seed that repeats it."""
    torch.set_num_threads(1)
    print("torch.manual_seed:", torch.seed())
