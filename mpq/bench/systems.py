"""The systems that `mpq.bench.inference` compares, by name."""

from mpq.bench.runtime_systems import OpenVino, OrtFloat, OrtInt8, OurOnnx
from mpq.bench.system import System
from mpq.bench.torch_systems import TorchFloat, TorchInt8, TorchPacked

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
