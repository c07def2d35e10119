"""Writes a packed folder as one ONNX file, every weight at its bits.

The graph is traced from the model in float32, then each weight that is packed in the folder is put in as its codes
(`rewrite`), in one of two layouts: `speed` or `memory`. Codes and scales are the packed file's own, never requantized.
"""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.errors import UserError
from mpq.record.atomic import replacing

if TYPE_CHECKING:
    import onnx_ir as ir

    from mpq.deploy.rewrite import Layout

LAYOUTS = ("speed", "memory")
_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_OPSET, _IR_VERSION = 25, 13  # the first with INT2; since 23 attention is one operator, faster than its parts
_MICROSOFT = 1  # version of ONNX Runtime's own operators


def export(folder: Path | str, output: Path | str, layout: str = "speed") -> Path:
    """Write the packed folder as the ONNX file `output`, the processor's files beside it, and return the path.

    Raises:
        UserError: an unknown layout, `folder` is no packed model or its model can't be exported, the extra `onnx` is
            not installed, or `output` can't be written.
    """
    check_installed()
    if layout not in LAYOUTS:
        raise UserError(f"layout={layout} must be one of {', '.join(LAYOUTS)}")
    output = Path(output)
    _check_writable(output)
    from mpq.checkpoint.packed import load_packed, read_folder
    from mpq.deploy import describe, float_graph, metadata
    from mpq.deploy.rewrite import rewrite
    from mpq.deploy.site_weight import read_weights
    from mpq.deploy.slices import in_slices

    config, sites, tied, stored = read_folder(Path(folder))
    model, processor = load_packed(folder)
    description = describe.describe(model, processor, layout, config["quantization_config"]["sha256"])
    weights = read_weights(sites, stored)
    choice = _layout(layout, model)  # before tracing: it may change how inputs are quantized
    program = float_graph.float_graph(model, description.attention_mask, description.sampling_rate, _OPSET)
    rewrite(program.graph, weights, tied, choice)
    convolutions = description.frame_steps[: len(model.config.conv_kernel)]  # without an adapter's
    in_slices(program.graph, convolutions, choice.frames_at_once)
    float_graph.finish(program)
    program.opset_imports["com.microsoft"] = _MICROSOFT
    program.ir_version = _IR_VERSION
    program.producer_name = "mpq"
    program.metadata_props[metadata.KEY] = description.to_json()
    _write(program, output, processor)
    return output


def check_installed() -> None:
    """Refuse to go on without the extra `onnx`.

    Raises:
        UserError: a package is missing; says how to install it.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"{', '.join(missing)} must be installed: pip install -e '.[onnx]' -c constraints.txt")


def _check_writable(output: Path) -> None:
    """Refuse before the work what would fail after it."""
    if output.is_dir():
        raise UserError(f"{output} is a folder: name the ONNX file to write")
    above = next(parent for parent in output.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"{output} can't be written: {above} is no folder that you may write to")


def _layout(name: str, model: Any) -> "Layout":
    """The layout; `speed` quantizes inputs itself, in `memory` the model's own quantizers are traced with it."""
    from mpq.deploy.integer_inputs import take_activations
    from mpq.deploy.memory import Memory
    from mpq.deploy.speed import Speed

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
