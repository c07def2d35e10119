"""Writes a packed model as ONNX, with every weight at its own precision: one file for CTC, a folder for Whisper.

The model is traced in float32; then the codes of each packed weight replace it (`graph.rewrite`), in one of two
layouts: `speed` or `memory`. Codes and scales are those of the packed file, never requantized.
"""

import importlib.util
import itertools
import operator
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mpq.checkpoint.format import read_declared
from mpq.deploy import compressed
from mpq.deploy.compressed import SUFFIX
from mpq.deploy.runtime import LAYOUTS
from mpq.deploy.runtime_seq2seq import is_whisper
from mpq.errors import UserError
from mpq.files import check_writable, replacing
from mpq.models.kinds import SEQ2SEQ, kind_of
from mpq.progress import work

if TYPE_CHECKING:
    import onnx_ir as ir

    from mpq.deploy.graph import Layout
    from mpq.deploy.slices import Slicing

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_OPSET, _IR_VERSION = 25, 13  # the first with INT2; since 23 attention is one operator, faster than its parts
_FEW_STEPS = 8  # a frame
_MICROSOFT = 1  # version of ONNX Runtime's own operators


def default_output(folder: Path, layout: str, compress: bool = False) -> Path:
    """Return where the packed `folder` is exported to: a file, or for a Whisper a folder of its own."""
    if _is_whisper(folder):
        return folder / "onnx" / (f"{layout}_zst" if compress else layout)
    return folder / "onnx" / f"model_{layout}.onnx{SUFFIX if compress else ''}"


def export(folder: Path | str, output: Path | str, layout: str = "speed", compress: bool = False) -> Path:
    """Write the packed folder as ONNX, with the processor's files beside it, and return `output`.

    `output` is a file, or for a Whisper a folder. `compress`: see `mpq.deploy.compressed`; the file's name must then
    end in .onnx.zst.

    Raises:
        UserError: the layout is unknown, `folder` is not a packed model or its model can't be exported, the extra
            `onnx` is not installed, `output` can't be written, or files of other models are beside it.
    """
    check_installed()
    if layout not in LAYOUTS:
        raise UserError(f"layout={layout} must be one of {', '.join(LAYOUTS)}")
    folder, output = Path(folder), Path(output)
    whisper = _is_whisper(folder)  # tells a wrong folder before the imports, which take seconds
    _check_output(output, whisper, compress)
    from mpq.checkpoint.packed import load_packed, read_folder
    from mpq.deploy import export_ctc, export_seq2seq, runtime
    from mpq.deploy.graph import read_weights

    kind: Any = export_seq2seq if whisper else export_ctc
    with work("Exporting", 4, "steps") as steps:
        steps.report(0, "reading the folder")
        config, sites, tied, stored = read_folder(folder)
        check_writable(output, 2 * sum(tensor.nbytes for tensor in stored.values()))  # 3-bit codes take 4 bits there
        model, processor = load_packed(folder)
        if processor is None:
            raise UserError("the folder has no processor: add the files that its save_pretrained writes")
        description = kind.describe(model, processor, layout, config["quantization_config"]["sha256"])
        if not whisper:
            _check_beside(output, lambda into: kind.write_beside(into, model, processor))
        weights = read_weights(sites, stored)
        choice = _layout(layout, model)  # before tracing: it may change how inputs are quantized
        steps.report(1, "tracing the model")
        programs = kind.trace(model, processor, _OPSET)
        steps.report(2, "inserting packed weights")
        kind.insert(programs, model, weights, tied, choice)
        for program in programs.values():
            program.opset_imports["com.microsoft"] = _MICROSOFT
            program.ir_version = _IR_VERSION
            program.producer_name = "mpq"
            program.metadata_props[runtime.METADATA_KEY] = runtime.to_json(description)
        steps.report(3, "writing")
        try:
            if whisper:
                named = {f"{name}{SUFFIX if compress else ''}": program for name, program in programs.items()}
                _write_folder(named, output, lambda into: kind.write_beside(into, model, processor))
            else:
                _write_file(programs[""], output)
                kind.write_beside(output.parent, model, processor)
        except OSError as error:
            raise UserError(f"{output} can't be written: {os.strerror(error.errno or 0)}") from error
        steps.report(4)
    return output


def _is_whisper(folder: Path) -> bool:
    config, _, _ = read_declared(folder)
    return kind_of(config) == SEQ2SEQ


def _check_output(output: Path, whisper: bool, compress: bool) -> None:
    if not whisper and output.is_dir():
        raise UserError(f"{output} is a folder: name the ONNX file to write")
    if not whisper and not output.name.endswith(f".onnx{SUFFIX}" if compress else ".onnx"):
        raise UserError(f"output={output} must end in .onnx{SUFFIX} with compress=true, and in .onnx without")
    if whisper and output.exists() and not is_whisper(output) and not _is_empty(output):
        raise UserError(f"{output} must be a folder that is new, empty or of an earlier export of a Whisper")
    check_writable(output)


def _check_beside(output: Path, write: Callable[[Path], None]) -> None:
    """Refuse to replace files that an earlier export to `output` can't have written."""
    if output.is_file():
        return
    with TemporaryDirectory() as temporary:
        write(Path(temporary))
        for made in sorted(Path(temporary).iterdir()):
            there = output.parent / made.name
            if there.exists() and not (there.is_file() and there.read_bytes() == made.read_bytes()):
                raise UserError(
                    f"{there} exists and is not this model's, whose processor has such a file: name a file in a "
                    f"folder of its own, output={output.parent / output.stem / output.name}"
                )


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


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

    slicing = _slicing(name, model.config)
    return Memory(slicing=slicing) if name == "memory" else Speed(take_activations(model), slicing)


def _slicing(layout: str, config: Any) -> "Slicing | None":
    """How the convolutions over time run, if the model hears audio."""
    from mpq.deploy.slices import Slicing, in_two_sizes

    if not hasattr(config, "conv_kernel"):
        return None
    steps = list(zip(config.conv_kernel, config.conv_stride, strict=True))
    if layout == "memory":
        return Slicing(steps, frames=32)  # fewer are slower, more are no faster
    if getattr(config, "feat_extract_norm", "layer") != "group":
        return Slicing(steps, frames=8)
    few = [
        stride for stride in itertools.accumulate(reversed(config.conv_stride), operator.mul) if stride <= _FEW_STEPS
    ]
    return in_two_sizes(steps, steps[len(steps) - len(few) :], most=32)


def _write_folder(programs: Mapping[str, "ir.Model"], output: Path, beside: Callable[[Path], None]) -> None:
    with replacing(output) as temporary:
        temporary.mkdir()
        for name, program in programs.items():
            _write_file(program, temporary / name)
        beside(temporary)


def _write_file(program: "ir.Model", output: Path) -> None:
    import onnx
    import onnx_ir as ir

    model = ir.to_proto(program)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    with replacing(output) as temporary:
        temporary.write_bytes(compressed.compress(content) if output.suffix == SUFFIX else content)
