"""Fills in an ONNX file's `Description` from the model and its processor, and refuses what no file can describe."""

from typing import Any

import torch

from mpq.deploy.metadata import Description
from mpq.errors import UserError
from mpq.models import ctc

# wav2vec2-conformer is traced without complaint and gives other logits: its table of positions grows with the audio.
_TRIED = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat")


def describe(model: Any, processor: Any, layout: str, source: str) -> Description:
    """Return the description of `model` with `processor`; `source` is the packed folder's checksum.

    Raises:
        UserError: no processor, a model type whose export was not tried, or a tokenizer that is not
            transformers' `Wav2Vec2CTCTokenizer`, whose text the runtime could not repeat.
    """
    if processor is None:
        raise UserError("the folder has no processor: add the files that its save_pretrained writes")
    if model.config.model_type not in _TRIED:
        raise UserError(
            f"only the model types {', '.join(_TRIED)} were seen to give PyTorch's logits as ONNX, "
            f"but this is {model.config.model_type}"
        )
    tokenizer, extractor = processor.tokenizer, processor.feature_extractor
    if type(tokenizer).__name__ != "Wav2Vec2CTCTokenizer":
        raise UserError(f"the tokenizer must be a Wav2Vec2CTCTokenizer, but is a {type(tokenizer).__name__}")
    description = Description(
        layout=layout,
        sampling_rate=int(extractor.sampling_rate),
        do_normalize=bool(extractor.do_normalize),
        attention_mask=bool(extractor.return_attention_mask),
        vocabulary=tokenizer.convert_ids_to_tokens(list(range(model.config.vocab_size))),
        blank=tokenizer.pad_token,
        word_delimiter=tokenizer.word_delimiter_token,
        lower_case=bool(tokenizer.do_lower_case),
        frame_steps=_frame_steps(model.config),
        source=source,
    )
    lengths = torch.arange(1_000, 50_000, 777)
    if ctc.frames(model, lengths).tolist() != [description.frames(length) for length in lengths.tolist()]:
        raise UserError(f"{type(model).__name__} counts its frames in a way that can't be written into an ONNX file")
    return description


def _frame_steps(config: Any) -> list[tuple[int, int]]:
    steps = list(zip(config.conv_kernel, config.conv_stride, strict=True))
    if getattr(config, "add_adapter", False):
        steps += [(1, config.adapter_stride)] * config.num_adapter_layers  # padded, so as if the kernel were 1
    return [(int(kernel), int(stride)) for kernel, stride in steps]
