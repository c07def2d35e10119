import pytest
import torch


@pytest.fixture(autouse=True)
def fresh_randomness():
    """New random inputs at each run; a failing test shows the seed that repeats it."""
    print("torch.manual_seed:", torch.seed())
