"""Runs an exported ONNX file: audio in, logits or text out, with onnxruntime and numpy alone."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpq.deploy.metadata import KEY, from_json
from mpq.deploy.saturation import add_exactly, saturates
from mpq.errors import UserError

FILE = "model.onnx"  # in a folder that is given in place of a file
_QUIET = 3  # errors only


class OnnxRecognizer:
    """A CTC speech recogniser in an ONNX file that `mpq.deploy.onnx_export` wrote.

    `description` tells its sampling rate, vocabulary and the rest; see `mpq.deploy.metadata`.
    """

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        """Load the file `path`; `threads` that compute (None: as many as there are cores).

        Raises:
            UserError: onnxruntime is not installed, or the file is missing, damaged or not one of ours.
        """
        try:
            import onnxruntime
        except ImportError:
            raise UserError("onnxruntime must be installed: pip install -e '.[onnx]' -c constraints.txt") from None
        if not Path(path).is_file():
            raise UserError(f"{path} is not a file: name an ONNX file that scripts/export.py wrote")
        options: Any = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        if threads is not None:
            options.intra_op_num_threads = threads
        # When a length comes again, ONNX Runtime would plan one block for it, beside the pool that it has by then.
        options.enable_mem_pattern = False
        self._session: Any = _session(path, options)
        self.description = from_json(self._session.get_modelmeta().custom_metadata_map.get(KEY), str(path))
        if self.description.layout == "speed" and saturates():
            add_exactly(options)
            self._session = None  # the memory of one, not of two
            self._session = _session(path, options)
        self._give_back = onnxruntime.RunOptions()
        self._give_back.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def logits(self, waveforms: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return the logits `[frames, vocabulary]` of each waveform `[samples]`, at the model's sampling rate.

        All are padded with zeros to the longest and run as one batch. A model without attention mask hears the padding,
        as it does in PyTorch, and the inputs of layout "speed" share their 8-bit scale over the batch: give waveforms
        one at a time where the result must not depend on its neighbours.

        Raises:
            UserError: a waveform is not one-dimensional, or too short for a single frame.
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
        """Return the text of each waveform, the likeliest character of each frame; see `logits`."""
        return [self.text(logits.argmax(-1)) for logits in self.logits(waveforms)]

    def text(self, characters: Sequence[int] | NDArray[np.integer]) -> str:
        """Return the text of a likeliest character per frame, as transformers' Wav2Vec2CTCTokenizer decodes it."""
        tokens = [self.description.vocabulary[index] for index, _ in groupby(characters)]
        letters = [token for token in tokens if token != self.description.blank]
        text = "".join(" " if token == self.description.word_delimiter else token for token in letters).strip()
        return text.lower() if self.description.lower_case else text

    def _prepared(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        waveform = np.asarray(waveform, dtype=np.float32)
        if waveform.ndim != 1 or self.description.frames(len(waveform)) < 1:
            raise UserError(f"a waveform must be [samples] and long enough for one frame, but is {waveform.shape}")
        if self.description.do_normalize:
            return (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
        return waveform


def _session(path: Path | str, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for every kind of damage
        raise UserError(f"{path} is not an ONNX file that can be loaded: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
