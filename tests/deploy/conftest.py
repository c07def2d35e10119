import functools

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_registry():
    """PyTorch's table of ONNX operators, which its exporter makes anew for each model in a third of the whole time."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture
def rng():
    """New random inputs and weights at each run; a failing test shows the seed that repeats it."""
    seed = int(np.random.SeedSequence().entropy) % 2**63
    print("seed:", seed)
    torch.manual_seed(seed)
    return np.random.default_rng(seed)
