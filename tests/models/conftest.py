import numpy as np
import pytest


@pytest.fixture
def rng():
    """New random inputs at each run; a failing test shows the seed that repeats it."""
    seed = int(np.random.SeedSequence().entropy) % 2**32
    print("numpy seed:", seed)
    return np.random.default_rng(seed)
