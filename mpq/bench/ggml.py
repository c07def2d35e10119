"""Writes a Whisper in whisper.cpp's own format, with the tensors that its `quantize` program would quantize.

The layout is that of whisper.cpp's `models/convert-h5-to-ggml.py` and `examples/quantize` (v1.8): header, mel filters,
tokens, then the tensors; matrices in `kind`, convolutions in float16, all else in float32.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mpq.deploy.log_mel import LogMel

# The peers are an optional extra.
# pyright: reportMissingImports=false

_KINDS = {"Q8_0": 7, "Q5_1": 9, "Q4_0": 2}  # as the header names them
_VERSION = 2_000  # of the quantized types, in the same field
_MAGIC = 0x67676D6C
_FLOAT = ("encoder.conv1.bias", "encoder.conv2.bias", "encoder.positional_embedding", "decoder.positional_embedding")
_NAMES = {
    "self_attn_layer_norm": "attn_ln",
    "self_attn.k_proj": "attn.key",
    "self_attn.q_proj": "attn.query",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "final_layer_norm": "mlp_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "encoder.layer_norm.": "encoder.ln_post.",
    "decoder.layer_norm.": "decoder.ln.",
    "embed_tokens": "token_embedding",
    "embed_positions.weight": "positional_embedding",
    "layers.": "blocks.",
}


def write(path: Path, model: Any, mel: LogMel, tokens: Mapping[int, bytes], kind: str) -> None:
    """Write `model`, a WhisperForConditionalGeneration, to the file `path`; `tokens`: the text of each token."""
    config = model.config
    with path.open("wb") as file:
        numbers = (config.vocab_size, config.max_source_positions, config.d_model, config.encoder_attention_heads)
        numbers += (config.encoder_layers, config.max_target_positions, config.d_model)
        numbers += (config.decoder_attention_heads, config.decoder_layers, config.num_mel_bins)
        file.write(struct.pack("<12i", _MAGIC, *numbers, _VERSION + _KINDS[kind]))
        bands = mel.bands
        file.write(struct.pack("<2i", *bands.shape) + bands.astype("<f4").tobytes())
        file.write(struct.pack("<i", len(tokens)))
        for number in sorted(tokens):
            file.write(struct.pack("<i", len(tokens[number])) + tokens[number])
        for name, tensor in model.model.state_dict().items():
            _tensor(file, _renamed(name), tensor.float().numpy(), kind)


def _renamed(name: str) -> str:
    for theirs, ours in _NAMES.items():
        name = name.replace(theirs, ours)
    return name


def _tensor(file: BinaryIO, name: str, values: np.ndarray, kind: str) -> None:
    from gguf import GGMLQuantizationType, quants

    if name in _FLOAT[:2]:
        values = values[:, None]
    stored = GGMLQuantizationType.F32
    if values.ndim > 1 and name not in _FLOAT:
        stored = GGMLQuantizationType[kind] if values.ndim == 2 else GGMLQuantizationType.F16
    label = name.encode()
    file.write(struct.pack("<3i", values.ndim, len(label), stored.value))
    file.write(struct.pack(f"<{values.ndim}i", *values.shape[::-1]) + label)
    file.write(quants.quantize(np.ascontiguousarray(values, dtype=np.float32), stored).tobytes())
