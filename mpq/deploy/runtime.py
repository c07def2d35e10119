"""Runs an exported ONNX file: audio in, logits or text out, with onnxruntime and numpy (compressed: and zstandard).

*Metadata.* The entry `mpq` of the file's metadata holds the fields of `Description` as JSON: all that is needed to get
from audio to text.

*Saturation.* On x86 without VNNI (most processors before 2019, AMD before Zen 4) ONNX Runtime's kernels for uint8
inputs and int8 weights accumulate two products in 16 bits and saturate (vpmaddubsw): with codes beyond 64 a sum may be
off by half. A session option of ONNX Runtime turns such weights into uint8, whose kernels accumulate in 32 bits and
take a fifth longer. On processors with VNNI the option costs time without any benefit, so it is set only where a test
product saturates.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpq.deploy.compressed import SUFFIX, read
from mpq.errors import UserError, first_line

LAYOUTS = ("speed", "memory")
_QUIET = 3  # errors only


class OnnxRecognizer:
    """A CTC speech recogniser in an ONNX file that `mpq.deploy.onnx_export` wrote, plain or compressed (.onnx.zst).

    `description` holds its sampling rate, vocabulary and the rest.
    """

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        """Load the file `path`; it computes with `threads` threads (None: as many as there are cores).

        Raises:
            UserError: onnxruntime is not installed, or the file is missing, damaged or not written by mpq.
        """
        self._session, self.description = open_file(Path(path), Description, threads)
        self._give_back = give_back()

    def logits(self, waveforms: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return the logits `[frames, vocabulary]` of each waveform `[samples]`, at the model's sampling rate.

        All are padded with zeros to the longest and run as one batch. Without an attention mask the model processes the
        padding too, as in PyTorch, and in layout "speed" the whole batch shares the 8-bit scale of its inputs: pass
        waveforms one at a time if a result must not depend on the others.

        Raises:
            UserError: as `as_samples`, or a waveform is too short for a single frame.
        """
        prepared = [self._prepared(waveform) for waveform in waveforms]
        if not prepared:
            return []
        lengths = [len(waveform) for waveform in prepared]
        batch = np.zeros((len(prepared), max(lengths)), dtype=np.float32)
        inputs: dict[str, NDArray[Any]] = {"input_values": batch}
        if self.description.attention_mask:
            inputs["attention_mask"] = np.zeros(batch.shape, dtype=np.int64)
        for row, waveform in enumerate(prepared):
            batch[row, : len(waveform)] = waveform
            if "attention_mask" in inputs:
                inputs["attention_mask"][row, : len(waveform)] = 1
        outputs = self._session.run(["logits"], inputs, self._give_back)[0]
        return [row[: self.description.frames(length)] for row, length in zip(outputs, lengths, strict=True)]

    def transcribe(self, waveforms: Sequence[NDArray[np.float32]]) -> list[str]:
        """Return the text of each waveform by greedy decoding; see `logits`."""
        return [self.text(logits.argmax(-1)) for logits in self.logits(waveforms)]

    def text(self, characters: Sequence[int] | NDArray[np.integer]) -> str:
        """Return the text of the likeliest character per frame, as transformers' Wav2Vec2CTCTokenizer decodes it."""
        tokens = [self.description.vocabulary[index] for index, _ in groupby(characters)]
        letters = [token for token in tokens if token != self.description.blank]
        between, delimiter = self.description.between_words, self.description.word_delimiter
        text = "".join(between if token == delimiter else token for token in letters).strip()
        return text.lower() if self.description.lower_case else text

    def _prepared(self, waveform: NDArray[Any]) -> NDArray[np.float32]:
        waveform = as_samples(waveform)
        if self.description.frames(len(waveform)) < 1:
            raise UserError(f"a waveform must be long enough for one frame, but has {len(waveform)} samples")
        if self.description.do_normalize:
            return (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
        return waveform


def as_samples(waveform: NDArray[Any]) -> NDArray[np.float32]:
    """Return a waveform `[samples]` as float32; one of int16 or int32 is divided by its full scale.

    Raises: UserError if it is not one-dimensional, of other whole numbers, or holds NaN or infinite values.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise UserError(f"a waveform must be [samples], but is {waveform.shape}")
    if not np.issubdtype(waveform.dtype, np.floating):
        if waveform.dtype not in (np.int16, np.int32):
            raise UserError(f"a waveform must be of float, int16 or int32 samples, but is of {waveform.dtype}")
        waveform = waveform / -float(np.iinfo(waveform.dtype).min)
    samples = waveform.astype(np.float32)
    if not np.isfinite(samples).all():
        raise UserError("a waveform holds NaN or infinite values")
    return samples


def open_file(path: Path, form: type["Form"], threads: int | None) -> tuple[Any, "Form"]:
    """Return the session and the description (of the class `form`) of an ONNX file that mpq wrote.

    Raises: UserError, as `OnnxRecognizer` does.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime must be installed: pip install -e '.[onnx]' -c constraints.txt") from None
    if not path.is_file():
        raise UserError(f"{path} is not a file: name an ONNX file that scripts/export.py wrote")
    content = read(path) if path.suffix == SUFFIX else None
    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    if threads is not None:
        options.intra_op_num_threads = threads
    # Else, when an input length recurs, ONNX Runtime allocates a block for it in addition to its memory pool.
    options.enable_mem_pattern = False
    session: Any = _session(path, content, options)
    description = read_description(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), str(path), form)
    if description.layout == "speed" and saturates():
        add_exactly(options)
        session = None  # freed first, so that only one is in memory
        session = _session(path, content, options)
    return session, description


def give_back() -> Any:
    """Return the options of a run that returns its memory afterwards."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _session(path: Path, content: bytes | None, options: Any) -> Any:
    """A session of the file `path`, or of its `content` if that was compressed."""
    import onnxruntime

    try:
        session: Any = onnxruntime.InferenceSession(content or path, options, providers=["CPUExecutionProvider"])
        session._model_bytes = None  # which it keeps, only to start again with other providers
        return session
    except Exception as error:  # onnxruntime raises a separate class for each kind of damage
        raise UserError(f"{path} is not an ONNX file that can be loaded: {first_line(error)}") from None


# c = MatMulInteger(a, b) of uint8 and int8, serialized by onnx.helper (a test checks it), so that onnx is not needed.
_PROBE = (
    b'\x08\x05:>\n\x18\n\x01a\n\x01b\x12\x01c"\rMatMulInteger\x12\x01gZ\t\n\x01a\x12\x04\n\x02\x08\x02'
    b"Z\t\n\x01b\x12\x04\n\x02\x08\x03b\t\n\x01c\x12\x04\n\x02\x08\x06B\x04\n\x00\x10\n"
)
_OPTION = ("session.x64quantprecision", "1")


@cache
def saturates() -> bool:
    """Whether sums of the largest uint8 x int8 products saturate on this processor."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(_PROBE, providers=["CPUExecutionProvider"])
    rows, inner, columns = 8, 64, 32
    largest = {"a": np.full((rows, inner), 255, np.uint8), "b": np.full((inner, columns), 127, np.int8)}
    return bool((session.run(None, largest)[0] != 255 * 127 * inner).any())


def add_exactly(options: Any) -> None:
    """Set `onnxruntime.SessionOptions` so that a session adds 8-bit products exactly.

    Only for files of layout "speed": with this option ONNX Runtime 1.31 fails at a DequantizeLinear with one scale per
    channel, and where two products share an int8 zero point. The option does not reach weights that a Loop reads from
    the outer graph.
    """
    options.add_session_config_entry(*_OPTION)


METADATA_KEY = "mpq"
VERSION = 2  # files of version 1 saturate on some processors


@dataclass(frozen=True)
class Description:
    """layout: speed or memory. sampling_rate: in Hz. do_normalize: scale each recording to mean 0 and variance 1.

    attention_mask: whether the model has the input `attention_mask` (1 for audio, 0 for padding). vocabulary: the token
    of each output. blank: the token that CTC drops; word_delimiter: the token between words, and between_words: what
    stands there in the text. lower_case: whether text is lower case. frame_steps: `(kernel, stride)` of each
    convolution over time, from which the number of samples gives the number of frames. source: SHA-256 of the packed
    folder's tensors.
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
    version: int = VERSION
    between_words: str = " "
    KIND: ClassVar[str] = "ctc"

    def frames(self, samples: int) -> int:
        """Return the number of output frames of a recording of `samples` samples."""
        for kernel, stride in self.frame_steps:
            samples = (samples - kernel) // stride + 1
        return max(samples, 0)


Form = TypeVar("Form", bound=Any)


def to_json(description: Any) -> str:
    """Return the entry's text for a description of either kind."""
    return json.dumps({"kind": description.KIND, **asdict(description)}, ensure_ascii=False)


def read_description(text: str | None, name: str, form: type[Form]) -> Form:
    """Read the entry of the file `name` as the dataclass `form`.

    Raises:
        UserError: there is no entry, it has a different version or is of a model of another kind, or its layout is not
            known.
    """
    try:
        fields: dict[str, Any] = json.loads(text or "")
        kind = fields.pop("kind", Description.KIND)  # files of CTC models had none at first
        if kind != form.KIND:
            what = "one of the two files of a Whisper: name its folder" if form is Description else "not of a Whisper"
            raise UserError(f"{name} is {what}")
        if fields["version"] == VERSION:
            if fields["layout"] not in LAYOUTS:
                raise UserError(f"{name} has layout {fields['layout']}, which must be one of {', '.join(LAYOUTS)}")
            return form(**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise UserError(f"{name} was not written by this version of mpq: export it again with scripts/export.py")
