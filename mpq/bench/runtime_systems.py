"""Running a model without PyTorch: ONNX Runtime on its own and on our files, and OpenVINO."""

# The peers are an optional extra.
# pyright: reportMissingImports=false
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpq.bench.system import Logits, System


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
    """ONNX Runtime's dynamic quantization of matrix products, 8-bit weights a channel."""

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
    """OpenVINO on PyTorch's own export, after NNCF made `mode` of it; at its own choice of inference precision.

    mode: int8 and int4 are `compress_weights`, static_int8 is `quantize`, activations included, calibrated on noise.
    """

    mode: str

    def make(self, files: Any) -> Path:
        """See `System`."""

        def make(path: Path) -> None:
            import openvino

            path.mkdir()
            # weights of fp32 in the file too, for what NNCF leaves alone
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
