"""What an ONNX file says of itself, so that audio goes in and text comes out with nothing else at hand.

One entry `mpq` in the file's metadata, JSON: the fields of `Description`. No class here needs torch or transformers.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mpq.errors import UserError

KEY = "mpq"
_VERSION = 2  # 1: files that could not add exactly on every processor (`saturation`)


@dataclass(frozen=True)
class Description:
    """layout: speed or memory. sampling_rate: in Hz. do_normalize: each recording gets mean 0 and variance 1.

    attention_mask: whether the model has the input `attention_mask` (1 for audio, 0 for padding). vocabulary: the token
    of each output. blank: the token that CTC drops; word_delimiter: the token between words. lower_case: whether text
    is written in small letters. frame_steps: `(kernel, stride)` of each convolution over time, which turn a number of
    samples into one of frames. source: SHA-256 of the packed folder's tensors.
    """

    layout: str
    sampling_rate: int
    do_normalize: bool
    attention_mask: bool
    vocabulary: Sequence[str]
    blank: str
    word_delimiter: str
    lower_case: bool
    frame_steps: Sequence[tuple[int, int]]
    source: str
    version: int = _VERSION

    def frames(self, samples: int) -> int:
        """Return the number of output frames of a recording of `samples` samples."""
        for kernel, stride in self.frame_steps:
            samples = (samples - kernel) // stride + 1
        return max(samples, 0)

    def to_json(self) -> str:
        """Return the entry's text."""
        return json.dumps(asdict(self), ensure_ascii=False)


def from_json(text: str | None, name: str) -> Description:
    """Read the entry of the file `name`.

    Raises:
        UserError: there is none, or of another version.
    """
    try:
        fields: dict[str, Any] = json.loads(text or "")
        if fields["version"] == _VERSION:
            return Description(**fields)
    except (ValueError, TypeError, KeyError):
        pass
    raise UserError(f"{name} was not written by this version of mpq: export it again with scripts/export.py")
