"""Writes a packed folder as one ONNX file, with every weight at its own precision.

The model is traced in float32; then the codes of each packed weight replace it (`graph.rewrite`), in one of two
layouts: `speed` or `memory`. Codes and scales are those of the packed file, never requantized.
"""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.checkpoint.format import read_declared
from mpq.errors import UserError
from mpq.files import check_writable, replacing
from mpq.progress import work

if TYPE_CHECKING:
    import onnx_ir as ir

    from mpq.deploy.graph import Layout
    from mpq.deploy.runtime import Description

LAYOUTS = ("speed", "memory")
_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_OPSET, _IR_VERSION = 25, 13  # the first with INT2; since 23 attention is one operator, faster than its parts
_MICROSOFT = 1  # version of ONNX Runtime's own operators


def export(folder: Path | str, output: Path | str, layout: str = "speed") -> Path:
    """Write the packed folder as the ONNX file `output`, with the processor's files beside it, and return the path.

    Raises:
        UserError: the layout is unknown, `folder` is not a packed model or its model can't be exported, the extra
            `onnx` is not installed, or `output` can't be written.
    """
    check_installed()
    if layout not in LAYOUTS:
        raise UserError(f"layout={layout} must be one of {', '.join(LAYOUTS)}")
    output = Path(output)
    if output.is_dir():
        raise UserError(f"{output} is a folder: name the ONNX file to write")
    check_writable(output)
    read_declared(Path(folder))  # tells a wrong folder before the imports, which take seconds
    from mpq.checkpoint.packed import load_packed, read_folder
    from mpq.deploy import graph, runtime
    from mpq.deploy.graph import read_weights, rewrite
    from mpq.deploy.slices import in_slices
    from mpq.models.ctc import CtcModel

    with work("Exporting", 4, "steps") as steps:
        steps.report(0, "reading the folder")
        config, sites, tied, stored = read_folder(Path(folder))
        check_writable(output, 2 * sum(tensor.nbytes for tensor in stored.values()))  # 3-bit codes take 4 bits there
        model, processor = load_packed(folder)
        description = describe(model, processor, layout, config["quantization_config"]["sha256"])
        weights = read_weights(sites, stored)
        choice = _layout(layout, model)  # before tracing: it may change how inputs are quantized
        steps.report(1, "tracing the model")
        program = graph.float_graph(CtcModel(model, processor), _OPSET)
        steps.report(2, "inserting packed weights")
        rewrite(program.graph, weights, tied, choice)
        convolutions = description.frame_steps[: len(model.config.conv_kernel)]  # without an adapter's
        in_slices(program.graph, convolutions, choice.frames_at_once)
        graph.finish(program)
        program.opset_imports["com.microsoft"] = _MICROSOFT
        program.ir_version = _IR_VERSION
        program.producer_name = "mpq"
        program.metadata_props[runtime.METADATA_KEY] = description.to_json()
        steps.report(3, "writing the file")
        _write(program, output, processor)
        steps.report(4)
    return output


def check_installed() -> None:
    """Check that the extra `onnx` is installed.

    Raises:
        UserError: a package is missing; the message says how to install it.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"{', '.join(missing)} must be installed: pip install -e '.[onnx]' -c constraints.txt")


def _layout(name: str, model: Any) -> "Layout":
    """The layout: `speed` quantizes inputs itself; for `memory` the model's own activation quantizers are traced."""
    from mpq.deploy.layout_memory import Memory
    from mpq.deploy.layout_speed import Speed, take_activations

    if name == "memory":
        return Memory()
    grouped = getattr(model.config, "feat_extract_norm", "layer") == "group"
    return Speed(take_activations(model), frames_at_once=2 if grouped else 8)


def _write(program: "ir.Model", output: Path, processor: Any) -> None:
    import onnx
    import onnx_ir as ir

    model = ir.to_proto(program)
    onnx.checker.check_model(model)
    try:
        with replacing(output) as temporary:
            onnx.save(model, temporary)
        processor.save_pretrained(output.parent)
    except OSError as error:
        raise UserError(f"{output} can't be written: {os.strerror(error.errno or 0)}") from error


# wav2vec2-conformer exports without an error but with wrong logits: its table of positions grows with the audio.
TRIED = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat")


def describe(model: Any, processor: Any, layout: str, source: str) -> "Description":
    """Return the description of `model` with `processor`; `source` is the packed folder's checksum.

    Raises:
        UserError: there is no processor, the export of this model type is untested, or the tokenizer is not
            transformers' `Wav2Vec2CTCTokenizer`, the only one whose decoding the runtime reproduces.
    """
    import torch

    from mpq.deploy.runtime import Description
    from mpq.models.ctc import CtcModel

    if processor is None:
        raise UserError("the folder has no processor: add the files that its save_pretrained writes")
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


def _frame_steps(config: Any) -> list[tuple[int, int]]:
    steps = list(zip(config.conv_kernel, config.conv_stride, strict=True))
    if getattr(config, "add_adapter", False):
        steps += [(1, config.adapter_stride)] * config.num_adapter_layers  # padded: as if the kernel were 1
    return [(int(kernel), int(stride)) for kernel, stride in steps]
