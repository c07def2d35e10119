"""A quantized weight on its way from the packed folder to the ONNX file: the same codes, the same scales."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor

from mpq.checkpoint.format import PackedSite, packed_name, scale_name
from mpq.checkpoint.packing import unpack

_STORED = {2: ml_dtypes.int2, 4: ml_dtypes.int4, 8: np.int8}


@dataclass(frozen=True)
class SiteWeight:
    """The weight `scale * (codes + offset)`: codes int8 `[out, in, ...]`, scale float32 `[out]`, offset 0 or 0.5."""

    name: str
    bits: int
    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    offset: float

    @property
    def stored_bits(self) -> int:
        """The bits that a code takes in the ONNX file, which knows 2, 4 and 8: the next that loses nothing."""
        return next(bits for bits in _STORED if bits >= self.bits)

    def tensor(self, codes: NDArray[np.int8] | None = None) -> ir.Tensor:
        """Return the codes, or `codes` in their place (a rearrangement), as a tensor of INT2, INT4 or INT8."""
        arranged = np.ascontiguousarray(self.codes if codes is None else codes)
        return ir.Tensor(arranged.astype(_STORED[self.stored_bits]), name=self.name)


def read_weights(sites: Mapping[str, PackedSite], stored: Mapping[str, Tensor]) -> dict[str, SiteWeight]:
    """Return the weights of all `sites` from the tensors of a packed folder (`mpq.checkpoint.packed.read_folder`)."""
    weights = {}
    for name, site in sites.items():
        codes = unpack(stored[packed_name(name)].numpy(), site.bits, math.prod(site.shape)).reshape(site.shape)
        scale = np.broadcast_to(stored[scale_name(name)].numpy().reshape(-1), (site.shape[0],)).copy()
        weights[name] = SiteWeight(name, site.bits, codes, scale, site.offset)
    return weights
