import pytest
import torch

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
