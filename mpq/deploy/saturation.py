"""Exact sums of 8-bit products on every processor.

On x86 without VNNI (most before 2019, AMD before Zen 4) ONNX Runtime's kernels for uint8 inputs and int8 weights add
two products in 16 bits and cut off what does not fit (vpmaddubsw): with codes beyond 64 a sum may be wrong by half. A
session option of ONNX Runtime turns such weights into uint8, whose kernels add in 32 bits and take a fifth longer. It
does so on processors with VNNI too, where that is slow for nothing: so it is set where a product shows the need.
"""

from functools import cache
from typing import Any

import numpy as np

# c = MatMulInteger(a, b), uint8 and int8: what onnx.helper makes of it, as a test checks, without onnx at hand.
_PROBE = (
    b'\x08\x05:>\n\x18\n\x01a\n\x01b\x12\x01c"\rMatMulInteger\x12\x01gZ\t\n\x01a\x12\x04\n\x02\x08\x02'
    b"Z\t\n\x01b\x12\x04\n\x02\x08\x03b\t\n\x01c\x12\x04\n\x02\x08\x06B\x04\n\x00\x10\n"
)
_OPTION = ("session.x64quantprecision", "1")


@cache
def saturates() -> bool:
    """Whether the largest products of uint8 and int8 come out too small on this processor."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(_PROBE, providers=["CPUExecutionProvider"])
    rows, inner, columns = 8, 64, 32
    largest = {"a": np.full((rows, inner), 255, np.uint8), "b": np.full((inner, columns), 127, np.int8)}
    return bool((session.run(None, largest)[0] != 255 * 127 * inner).any())


def add_exactly(options: Any) -> None:
    """Have a session with these `onnxruntime.SessionOptions` add 8-bit products exactly.

    Only for files of layout "speed": with this option ONNX Runtime 1.31 fails at a DequantizeLinear with a scale for
    each channel, and where two products share an int8 zero point; weights that a Loop takes from outside stay as they
    are.
    """
    options.add_session_config_entry(*_OPTION)
