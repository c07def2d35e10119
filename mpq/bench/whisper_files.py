"""The files of one Whisper that the systems of `mpq.bench.whisper_systems` load, each made once, from local folders."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnxscript.optimizer import optimize_ir

from mpq.bench.whisper_systems import ABOUT, GIVEN, LATER, SIZED, description
from mpq.compress.quantize_now import quantize_now
from mpq.deploy import cached_decoder, export_seq2seq, graph, graph_seq2seq, runtime
from mpq.deploy.onnx_export import export
from mpq.deploy.runtime_seq2seq import DECODER, ENCODER
from mpq.deploy.vocabulary import VOCABULARY
from mpq.errors import UserError
from mpq.models.loading import load

_OPSET, _IR_VERSION = 23, 11


class Files:
    """`model`: a folder that transformers saved. `given`: folders that mpq packed of it, by the name of their bits."""

    def __init__(self, model: Path, given: Mapping[str, Path], folder: Path) -> None:
        self.model, self.given, self.folder = model, given, folder
        folder.mkdir(parents=True, exist_ok=True)

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the path `name` in the folder; `make` writes it if it does not exist yet."""
        path = self.folder / name
        if not path.exists():
            try:
                make(path)
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise
        return path

    def packed(self, bits: str) -> Path:
        """Our packed folder: rounded to `bits` on average without data, or the one that was given."""
        if bits in self.given:
            return self.given[bits]
        if bits in GIVEN:
            raise FileNotFoundError(f"{bits}= names no packed folder")
        return self.once(f"packed_{bits}", lambda path: quantize_now(str(self.model), float(bits), output=path))

    def ours(self, bits: str, layout: str) -> Path:
        """Our export of `packed`; of a model made for a size, compressed."""
        compress = bits == SIZED
        return self.once(f"ours_{bits}_{layout}", lambda path: export(self.packed(bits), path, layout, compress))

    def float_onnx(self) -> Path:
        """The float32 model from PyTorch's own exporter: encoder and merged decoder, as our files without packing."""
        return self._traced("float_onnx", merged=True)

    def split_onnx(self) -> Path:
        """The same with one decoder for the first step and one for the later ones, which NNCF and OpenVINO need.

        NNCF 3.4 fails at an `If`, and OpenVINO's CPU runs none whose results have no rank.
        """
        return self._traced("split_onnx", merged=False)

    def dynamic_int8(self) -> Path:
        """What ONNX Runtime's `quantize_dynamic` makes of it, before the decoder is merged: it fails at an `If`."""

        def make(path: Path) -> None:
            import logging

            from onnxruntime.quantization import QuantType, quantize_dynamic

            logging.getLogger().setLevel(logging.ERROR)  # its advice on pre-processing
            shutil.copytree(self.float_onnx(), path)
            for file in (ENCODER, DECODER):
                program = ir.load(self.split_onnx() / file)
                operators = ["MatMul", "Gemm", "Gather"]  # its integer convolution is slower than the float one
                settings = {"per_channel": True, "weight_type": QuantType.QInt8}
                quantize_dynamic(ir.to_proto(program), path / file, operators, **settings)
            decoder, about = ir.load(path / DECODER), description(path)
            cached_decoder.merge(decoder, about.heads, about.width)
            config = load(str(self.model))[0].config
            graph.finish(decoder, *graph_seq2seq.interfaces(config)[DECODER])
            for file, program in ((ENCODER, ir.load(path / ENCODER)), (DECODER, decoder)):
                program.metadata_props[runtime.METADATA_KEY] = (path / ABOUT).read_text(encoding="utf-8")
                made = ir.to_proto(program)
                onnx.save(made, path / file)

        return self.once("dynamic_int8", make)

    def beside(self, path: Path) -> None:
        """Write what a system's own folder needs to get from audio to text: our description, and the tokens."""
        for name in (ABOUT, *VOCABULARY):
            shutil.copy(self.float_onnx() / name, path / name)

    def _traced(self, name: str, merged: bool) -> Path:
        def make(path: Path) -> None:
            path.mkdir()
            loaded, processor = load(str(self.model))
            model: Any = loaded.float().eval()
            about = runtime.to_json(export_seq2seq.describe(model, processor, "memory", ""))
            programs = export_seq2seq.trace(model, processor, _OPSET)
            shapes = graph_seq2seq.interfaces(model.config)
            heads = model.config.decoder_attention_heads
            if merged:
                cached_decoder.merge(programs[DECODER], heads, model.config.d_model // heads)
                graph.finish(programs[DECODER], *shapes[DECODER])
            else:
                programs[LATER] = programs[DECODER].clone()
                _finish_split(programs, shapes[DECODER])
            graph.finish(programs[ENCODER], *shapes[ENCODER])
            for file, program in programs.items():
                if not merged:  # neither NNCF nor ONNX Runtime quantizes a weight before its transposition
                    optimize_ir(program, input_size_limit=2**31, output_size_limit=2**31)
                program.ir_version = _IR_VERSION
                program.metadata_props[runtime.METADATA_KEY] = about
                ir.save(program, path / file)
            export_seq2seq.write_beside(path, model, processor)
            (path / ABOUT).write_text(about, encoding="utf-8")

        return self.once(name, make)


def _finish_split(programs: Mapping[str, ir.Model], shapes: tuple[graph.Shapes, graph.Shapes]) -> None:
    """Finish the traced decoder for the first step, and its copy for later ones, which reads the encoder's states."""
    inputs, outputs = (dict(one) for one in shapes)
    own = {name: shape for name, shape in inputs.items() if ".encoder." not in name and name != "use_cache_branch"}
    graph.finish(programs[DECODER], own, outputs)
    later = programs[LATER].graph
    of_encoder = {name: shape for name, shape in inputs.items() if ".encoder." in name}
    states = list(later.outputs[1:])
    taken = [value for layer in range(0, len(states), 4) for value in states[layer + 2 : layer + 4]]
    later.outputs[:] = [value for value in later.outputs if value not in taken]
    for name, value in zip(of_encoder, taken, strict=True):
        given = ir.val(name, dtype=ir.DataType.FLOAT, shape=ir.Shape(of_encoder[name]))
        ir.convenience.replace_all_uses_with(value, given)
        later.inputs.append(given)
    del later.inputs[1]  # the encoder's output
    kept = {name: shape for name, shape in outputs.items() if ".encoder." not in name}
    own.pop("encoder_hidden_states")
    graph.finish(programs[LATER], own | of_encoder, kept)


def check(model: Path) -> None:
    """Raise UserError unless `model` is the folder of a float Whisper."""
    config = model / "config.json"
    if not config.is_file() or json.loads(config.read_text(encoding="utf-8")).get("model_type") != "whisper":
        raise UserError(f"model={model} must be a Whisper's folder that transformers saved")
