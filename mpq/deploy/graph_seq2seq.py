"""The two graphs of a Whisper in float32, with the names and inputs of Hugging Face Optimum's files.

Readers of such files expect an encoder, and a *merged* decoder that serves the first step and all later ones. Its
inputs `past_key_values.*` hold keys and values of the tokens so far (`decoder`) and of the encoder's output
(`encoder`); `use_cache_branch` says whether they count. Its outputs `present.*` are the next step's inputs. Here the
decoder is traced once, in transformers' own code, with the first kind as inputs; `cached_decoder` adds the rest.
"""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from mpq.deploy.graph import Shapes, trace
from mpq.deploy.runtime_seq2seq import BRANCH, FEATURES, FILES, HIDDEN, LOGITS, STATE, TOKENS, cache_names

Past = Sequence[tuple[Tensor, Tensor]]  # keys and values of each layer


class _Encoder(nn.Module):
    """transformers' `WhisperEncoder` for any number of frames: its own insists on 30 s."""

    def __init__(self, whisper: Any) -> None:
        super().__init__()
        self.model = whisper.model

    def forward(self, input_features: Tensor) -> Tensor:
        """Features `[batch, bins, frames]` -> hidden states `[batch, frames / 2, width]`."""
        encoder = self.model.encoder
        hidden = nn.functional.gelu(encoder.conv1(input_features))
        hidden = nn.functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        for layer in encoder.layers:
            hidden = layer(hidden, None)
        return encoder.layer_norm(hidden)


class _Decoder(nn.Module):
    """transformers' `WhisperDecoder` with its cache as tensors, and the output layer."""

    def __init__(self, whisper: Any) -> None:
        super().__init__()
        self.model, self.proj_out = whisper.model, whisper.proj_out

    def forward(self, input_ids: Tensor, encoder_hidden_states: Tensor, past: Past) -> tuple[Tensor, list[Tensor]]:
        """Return the logits, and keys and values of each layer: of the tokens, then of the encoder's output."""
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for layer, (keys, values) in enumerate(past):
            cache.self_attention_cache.update(keys, values, layer)
        made = self.model.decoder(
            input_ids=input_ids, encoder_hidden_states=encoder_hidden_states, past_key_values=cache, use_cache=True
        )
        layers: Any = (cache.self_attention_cache.layers, cache.cross_attention_cache.layers)
        both = zip(*layers, strict=True)
        states = [tensor for own, cross in both for tensor in (own.keys, own.values, cross.keys, cross.values)]
        return self.proj_out(made.last_hidden_state), states


def encoder_graph(whisper: Any, opset: int) -> ir.Model:
    """Trace the encoder: `input_features` float32 `[batch, bins, frames]` -> `last_hidden_state`."""
    features = torch.randn(2, whisper.config.num_mel_bins, 10, generator=torch.Generator().manual_seed(0))
    batch, half = torch.export.Dim("batch"), torch.export.Dim("half", max=whisper.config.max_source_positions)
    return trace(_Encoder(whisper), {FEATURES: features}, {FEATURES: {0: batch, 2: 2 * half}}, opset)


def decoder_graph(whisper: Any, opset: int) -> ir.Model:
    """Trace the decoder: `input_ids`, `encoder_hidden_states` and the past of each layer -> see `_Decoder`."""
    config, draws = whisper.config, torch.Generator().manual_seed(0)
    heads = config.decoder_attention_heads
    one = (2, heads, 3, config.d_model // heads)
    inputs = {
        TOKENS: torch.randint(0, config.vocab_size, (2, 4), generator=draws),
        HIDDEN: torch.randn(2, 5, config.d_model, generator=draws),
        "past": [tuple(torch.randn(one, generator=draws) for _ in range(2)) for _ in range(config.decoder_layers)],
    }
    batch, tokens, time, before = (torch.export.Dim(name) for name in ("batch", "tokens", "time", "before"))
    axes = {TOKENS: {0: batch, 1: tokens}, HIDDEN: {0: batch, 1: time}}
    axes["past"] = [({0: batch, 2: before}, {0: batch, 2: before})] * config.decoder_layers
    return trace(_Decoder(whisper), inputs, axes, opset)


def interfaces(config: Any) -> dict[str, tuple[Shapes, Shapes]]:
    """Return the names and shapes of inputs and outputs, by file name."""
    heads, width = config.decoder_attention_heads, config.d_model // config.decoder_attention_heads
    encoder, decoder = FILES
    hidden = ["batch", "time", config.d_model]
    past = {name: ["batch", heads, f"past_{name.split('.')[2]}", width] for name in cache_names(config.decoder_layers)}
    present = {name.replace("past_key_values", "present"): ["kept", *shape[1:]] for name, shape in past.items()}
    return {
        encoder: ({FEATURES: ["batch", config.num_mel_bins, "frames"]}, {STATE: hidden}),
        decoder: (
            {TOKENS: ["batch", "tokens"], HIDDEN: hidden, **past, BRANCH: [1]},
            {LOGITS: ["batch", "tokens", config.vocab_size], **present},
        ),
    }
