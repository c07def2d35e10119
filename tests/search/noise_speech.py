"""A tiny wav2vec2 with random weights and random audio on disk: what a stage or a measured search works on."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import nn

from mpq.data.dataset import SpeechDataset
from mpq.data.librispeech import Utterance
from mpq.models import loading
from mpq.models.ctc import CtcReader
from mpq.models.processor import letters_processor
from mpq.train.optimization import Optimization

ARCHITECTURE = {
    "model_type": "wav2vec2",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_feat_extract_layers": 2,
    "conv_dim": [8, 16],
    "conv_kernel": [40, 16],
    "conv_stride": [20, 16],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
}


def model(seed: int, layers: int = 2, width: int = 16) -> nn.Module:
    """A random model whose outputs differ between frames; its weights are of unequal sizes and spreads."""
    torch.set_num_threads(1)
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 2 * width}
    made, _ = loading.from_scratch({**ARCHITECTURE, **sizes}, seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(8 if "lm_head" in name else 6)
    return made


def dataset(folder: Path, utterances: int, seed: int) -> SpeechDataset:
    """Noise of 0.3 to 0.8 seconds, labelled with random letters."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(utterances):
        samples = rng.normal(0, 0.1, int(16_000 * rng.uniform(0.3, 0.8)))
        path = folder / f"{number}.wav"
        soundfile.write(path, samples, 16_000)
        text = "".join(rng.choice(list("ABCDE"), 4))
        made.append(Utterance(str(number), "train", "s", path, text, len(samples) / 16_000))
    return SpeechDataset(made, CtcReader(letters_processor()), "stop")


def optimization(updates: int, **changes: object) -> Optimization:
    """Settings of a stage of a few updates."""
    settings = {
        "audio_seconds": 2.0,
        "learning_rate": 1e-3,
        "scale_learning_rate": 2e-3,
        "weight_decay": 0.0,
        "warmup": 0.0,
        "decay": 0.5,
        "clip": 1.0,
        "interval": 2,
        "accumulate": 1,
        "dropout": False,
        "train_feature_encoder": False,
        "workers": 0,
    }
    return Optimization(updates=updates, **{**settings, **changes})
