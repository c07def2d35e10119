import numpy as np
import pytest
import torch

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def rng():
    """New random inputs and weights at each run; a failing test shows the seed that repeats it."""
    seed = int(np.random.SeedSequence().entropy) % 2**63
    print("seed:", seed)
    torch.manual_seed(seed)
    return np.random.default_rng(seed)
