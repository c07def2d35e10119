"""A CTC model as one ONNX file, whose metadata holds all that its runtime needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from mpq.deploy import attention, graph
from mpq.deploy.graph import Layout, SiteWeight
from mpq.deploy.runtime import Description
from mpq.deploy.slices import features_of, in_slices
from mpq.errors import UserError
from mpq.models.ctc import CtcModel

# wav2vec2-conformer exports without an error but with wrong logits: its table of positions grows with the audio.
TRIED = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat")


def describe(model: Any, processor: Any, layout: str, source: str) -> Description:
    """Return the description of `model` with `processor`; `source` is the packed folder's checksum.

    Raises:
        UserError: the export of this model type is untested, or the tokenizer is not
            transformers' `Wav2Vec2CTCTokenizer`, the only one whose decoding the runtime reproduces.
    """
    if model.config.model_type not in TRIED:
        raise UserError(
            f"export is tested only for the model types {', '.join(TRIED)}, whose ONNX logits match PyTorch's; "
            f"this model is {model.config.model_type}: use its folder, in scripts/transcribe.py or in transformers"
        )
    speech, tokenizer = CtcModel(model, processor), processor.tokenizer
    if type(tokenizer).__name__ != "Wav2Vec2CTCTokenizer":
        raise UserError(f"the tokenizer must be a Wav2Vec2CTCTokenizer, not a {type(tokenizer).__name__}")
    description = Description(
        layout=layout,
        sampling_rate=int(speech.sampling_rate),
        do_normalize=bool(processor.feature_extractor.do_normalize),
        attention_mask=speech.takes_attention_mask,
        vocabulary=tokenizer.convert_ids_to_tokens(list(range(model.config.vocab_size))),
        blank=tokenizer.pad_token,
        word_delimiter=tokenizer.word_delimiter_token,
        between_words=tokenizer.replace_word_delimiter_char,
        lower_case=bool(tokenizer.do_lower_case),
        frame_steps=_frame_steps(model.config),
        source=source,
    )
    lengths = torch.arange(1_000, 50_000, 777)
    if speech.frames(lengths).tolist() != [description.frames(length) for length in lengths.tolist()]:
        raise UserError(
            f"{type(model).__name__} computes its number of frames in a way that can't be written into an ONNX file"
        )
    return description


def trace(model: Any, processor: Any, opset: int) -> dict[str, ir.Model]:
    """Return the graph in float32; it has no name of its own."""
    speech = CtcModel(model, processor)
    two_frames = int((speech.frames(torch.arange(int(speech.sampling_rate))) < 2).sum())
    return {"": graph.float_graph(speech, opset, two_frames)}


def insert(
    programs: Mapping[str, ir.Model],
    model: Any,
    weights: Mapping[str, SiteWeight],
    tied: Mapping[str, str],
    layout: Layout,
) -> None:
    """Put the packed weights into the graph of `trace`, in place, and complete it."""
    (program,) = programs.values()
    assert layout.slicing is not None
    values = features_of(program.graph)
    attention.join_heads(program.graph, model.config.num_attention_heads, masked=len(program.graph.inputs) > 1)
    graph.rewrite(program.graph, weights, tied, layout)
    in_slices(program.graph, layout.slicing, values[-1 - layout.slicing.whole], values[-1])
    inputs = {str(value.name): ["batch", "samples"] for value in program.graph.inputs}
    graph.finish(program, inputs, {graph.OUTPUT: ["batch", "frames", model.config.vocab_size]})


def write_beside(folder: Path, model: Any, processor: Any) -> None:
    """Write the processor's files into `folder`."""
    processor.save_pretrained(folder)


def _frame_steps(config: Any) -> list[tuple[int, int]]:
    steps = list(zip(config.conv_kernel, config.conv_stride, strict=True))
    if getattr(config, "add_adapter", False):
        steps += [(1, config.adapter_stride)] * config.num_adapter_layers  # padded: as if the kernel were 1
    return [(int(kernel), int(stride)) for kernel, stride in steps]
