"""The ways to run a model that `mpq.bench.inference` compares: PyTorch, ONNX Runtime, OpenVINO, and our files.

A system makes a file and loads it as a function of audio. Heavy libraries are imported when a system is loaded, so that
a process with one system has only that system's memory.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpq.cores import usable_cores

# The peers are an optional extra.
# pyright: reportMissingImports=false


Logits = Callable[[np.ndarray], np.ndarray]  # float32 [samples] -> float32 [frames, vocabulary]


@dataclass(frozen=True)
class System(ABC):
    """One way to run the model. `libraries` are imported before the load time is measured."""

    name: str
    libraries: tuple[str, ...]

    @abstractmethod
    def make(self, files: Any) -> Path:
        """Write the file or folder that `load` reads, using `files` (`mpq.bench.models.Files`), and return its path."""

    @abstractmethod
    def load(self, path: Path, threads: int) -> Logits:
        """Return the function from audio to logits, running on `threads` threads."""


def usable_threads(threads: int) -> int:
    """Return `threads`, or if 0 the number of cores that this process may use."""
    return threads or usable_cores()


class TorchFloat(System):
    """The unmodified transformers model."""

    def make(self, files: Any) -> Path:
        """See `System`."""
        return files.float_folder()

    def load(self, path: Path, threads: int) -> Logits:
        """See `System`."""
        return _torch_logits(_torch_model(path), threads)


class TorchInt8(System):
    """PyTorch's dynamic quantization: linear layers with 8-bit weights, inputs quantized to 8 bits at run time.

    It has no safe file format, so the float32 folder is loaded and then quantized.
    """

    def make(self, files: Any) -> Path:
        """See `System`."""
        return files.float_folder()

    def load(self, path: Path, threads: int) -> Logits:
        """See `System`."""
        import warnings

        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.ao is to move to torchao
            model = torch.ao.quantization.quantize_dynamic(_torch_model(path), {torch.nn.Linear}, dtype=torch.qint8)
        return _torch_logits(model, threads)


@dataclass(frozen=True)
class TorchPacked(System):
    """Our packed folder, loaded by transformers, with weights packed in memory and dequantized at each use."""

    bits: float

    def make(self, files: Any) -> Path:
        """See `System`."""
        return files.packed(self.bits)

    def load(self, path: Path, threads: int) -> Logits:
        """See `System`."""
        from mpq.checkpoint.hf import MpqConfig

        return _torch_logits(_torch_model(path, quantization_config=MpqConfig(keep_packed=True)), threads)


def _torch_model(path: Path, **settings: Any) -> Any:
    from transformers import AutoModelForCTC
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return AutoModelForCTC.from_pretrained(path, **settings).eval()


def _torch_logits(model: Any, threads: int) -> Logits:
    import torch

    def logits(audio: np.ndarray) -> np.ndarray:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return model(torch.from_numpy(audio)[None]).logits[0].numpy()

    return logits


class OrtFloat(System):
    """ONNX Runtime on PyTorch's own export."""

    def make(self, files: Any) -> Path:
        """See `System`."""
        return files.float_onnx()

    def load(self, path: Path, threads: int) -> Logits:
        """See `System`."""
        import onnxruntime

        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda audio: session.run(None, {"input_values": audio[None]})[0][0]


class OrtInt8(OrtFloat):
    """ONNX Runtime's dynamic quantization of matrix products, 8-bit weights with one scale per channel."""

    def make(self, files: Any) -> Path:
        """See `System`."""
        import logging

        from onnxruntime.quantization import QuantType, quantize_dynamic

        def make(path: Path) -> None:
            logging.getLogger().setLevel(logging.ERROR)  # its advice on pre-processing
            operators = ["MatMul", "Gemm"]  # its integer convolution is slower than the float one
            quantize_dynamic(files.float_onnx(), path, operators, per_channel=True, weight_type=QuantType.QInt8)

        return files.once("dynamic_int8.onnx", make)


@dataclass(frozen=True)
class OurOnnx(System):
    """Our ONNX file in one of its two layouts, at `bits` on average."""

    bits: float
    layout: str

    def make(self, files: Any) -> Path:
        """See `System`."""
        from mpq.deploy.onnx_export import export

        return files.once(
            f"ours_{self.bits:g}_{self.layout}.onnx", lambda path: export(files.packed(self.bits), path, self.layout)
        )

    def load(self, path: Path, threads: int) -> Logits:
        """See `System`."""
        from mpq.deploy.runtime import OnnxRecognizer

        recognizer = OnnxRecognizer(path, threads=threads)
        return lambda audio: recognizer.logits([audio])[0]


@dataclass(frozen=True)
class OpenVino(System):
    """OpenVINO on PyTorch's own export after NNCF compressed it in `mode`; OpenVINO chooses the inference precision.

    mode: int8 and int4 are `compress_weights`; static_int8 is `quantize`, which includes activations, on noise.
    """

    mode: str

    def make(self, files: Any) -> Path:
        """See `System`."""

        def make(path: Path) -> None:
            import openvino

            path.mkdir()
            # weights that NNCF does not compress stay fp32 in the file
            openvino.save_model(self._compressed(files.float_onnx()), path / "model.xml", compress_to_fp16=False)

        return files.once(f"openvino_{self.mode}", make)

    def _compressed(self, onnx: Path) -> Any:
        import logging

        import nncf
        import openvino

        logging.getLogger("nncf").setLevel(logging.ERROR)
        model = openvino.Core().read_model(onnx)
        if self.mode == "static_int8":
            clips = [np.random.default_rng(k).standard_normal((1, 48_000)).astype(np.float32) for k in range(4)]
            return nncf.quantize(
                model, nncf.Dataset(clips), subset_size=len(clips), model_type=nncf.ModelType.TRANSFORMER
            )
        mode = {"int8": nncf.CompressWeightsMode.INT8_SYM, "int4": nncf.CompressWeightsMode.INT4_SYM}[self.mode]
        whole = {} if self.mode == "int8" else {"all_layers": True, "group_size": 32}
        return nncf.compress_weights(model, mode=mode, **whole)

    def load(self, path: Path, threads: int) -> Logits:
        """See `System`."""
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.Core().compile_model(path / "model.xml", "CPU", settings)
        return lambda audio: compiled(audio[None])[0][0]


BITS = (8.0, 4.0, 3.5, 2.0)
LAYOUTS = ("speed", "memory")


def all_systems() -> dict[str, System]:
    """Return the systems by name, the reference first."""
    torch_libraries = ("torch", "transformers.modeling_utils", "transformers.models.auto.modeling_auto")
    openvino = [OpenVino(f"openvino_{mode}", ("openvino",), mode) for mode in ("int8", "int4", "static_int8")]
    systems = [
        TorchFloat("torch_float32", torch_libraries),
        TorchInt8("torch_dynamic_int8", torch_libraries),
        OrtFloat("onnxruntime_float32", ("onnxruntime",)),
        OrtInt8("onnxruntime_dynamic_int8", ("onnxruntime",)),
        *openvino,
        *(
            OurOnnx(f"ours_{layout}_{bits:g}bit", ("onnxruntime", "mpq.deploy.runtime"), bits, layout)
            for layout in LAYOUTS
            for bits in BITS
        ),
        *(TorchPacked(f"ours_torch_packed_{bits:g}bit", torch_libraries, bits) for bits in BITS),
    ]
    return {system.name: system for system in systems}
