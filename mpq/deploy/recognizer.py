"""A model that turns samples into text, wherever it runs: PyTorch for folders and Hub names, ONNX Runtime for `.onnx`.

Both hear one recording at a time, without padding, so that a text never depends on its neighbours.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpq.data.audio import Recording
from mpq.deploy.chunks import MARGIN, SECONDS, chunked_logits
from mpq.deploy.transcript import Transcript, transcript
from mpq.errors import UserError

if TYPE_CHECKING:
    from mpq.deploy.metadata import Description


@dataclass(frozen=True)
class Recognizer:
    """`logits` gives frames `[frames, vocabulary]` of samples `[time]` at `rate` Hz, one frame every `step` samples.

    A `step` of None says that it is not known, and no recording is cut then.
    """

    logits: Callable[[np.ndarray], np.ndarray]
    tokenizer: Any
    rate: int
    step: int | None

    def transcribe(self, recording: Recording, seconds: float = SECONDS, margin: float = MARGIN) -> Transcript:
        """What is said in a recording at `rate`, heard in chunks of `seconds` that overlap by two margins (seconds).

        Raises: UserError where the margins leave nothing of a chunk; BadAudioError where the recording is no good.
        """
        if self.step is None:
            parts = iter([self.logits(np.concatenate(list(recording.blocks)))])
        else:
            size, inner = round(seconds * self.rate), round(margin * self.rate)
            parts = chunked_logits(self.logits, recording.blocks, recording.samples, size, inner, self.step)
        characters = np.concatenate([_checked(frames).argmax(-1) for frames in parts])
        return transcript(characters, self.tokenizer, (self.step or 0) / self.rate)


def _checked(frames: np.ndarray) -> np.ndarray:
    """The frames, unless a damaged model made them, of which argmax would make an empty text."""
    if np.isnan(frames).any():
        raise UserError("the model's outputs are no numbers: its weights are damaged, load or train it again")
    return frames


def open_recognizer(model: str, accelerator: str = "auto") -> Recognizer:
    """The recognizer of a packed folder, another CTC model's folder, a Hub name, or an `.onnx` file.

    Raises: UserError where there is none, it is damaged, or not a CTC model.
    """
    return _onnx(Path(model)) if model.endswith(".onnx") else _torch(model, accelerator)


def _torch(name: str, accelerator: str) -> Recognizer:
    import torch

    from mpq.checkpoint import folder
    from mpq.models import ctc

    local = Path(name)
    model, processor = folder.load(local) if (local / "config.json").is_file() else ctc.load(name)
    if processor is None:
        raise UserError(f"{name} has no processor: add the files that its processor's save_pretrained writes")
    extractor = processor.feature_extractor
    ctc.to_accelerator(model.eval(), accelerator)
    device = next(model.parameters()).device

    @torch.inference_mode()
    def logits(samples: np.ndarray) -> np.ndarray:
        features = extractor(samples, sampling_rate=extractor.sampling_rate, return_attention_mask=False)
        inputs = torch.as_tensor(features[extractor.model_input_names[0]][0])[None].to(device)
        lengths = torch.tensor([inputs.shape[1]], device=device)
        frames = ctc.logits(model, inputs, lengths, bool(extractor.return_attention_mask))
        return frames[0, : int(ctc.frames(model, lengths)[0])].float().cpu().numpy()

    return Recognizer(logits, processor.tokenizer, extractor.sampling_rate, ctc.stride(model))


def _onnx(path: Path) -> Recognizer:
    from mpq.deploy.runtime import OnnxRecognizer

    model = OnnxRecognizer(path)
    about = model.description
    shortest = next(samples for samples in count(1) if about.frames(samples) > 0)

    def logits(samples: np.ndarray) -> np.ndarray:
        padded = np.pad(samples, (0, max(0, shortest - len(samples))))
        return model.logits([padded])[0][: about.frames(len(samples))]

    return Recognizer(logits, _tokenizer(about), about.sampling_rate, prod(stride for _, stride in about.frame_steps))


def _tokenizer(about: "Description") -> Any:
    """transformers' tokenizer of an ONNX file's vocabulary."""
    from transformers import Wav2Vec2CTCTokenizer

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.json"
        file.write_text(json.dumps({token: index for index, token in enumerate(about.vocabulary)}), encoding="utf-8")
        return Wav2Vec2CTCTokenizer(
            str(file),
            pad_token=about.blank,
            word_delimiter_token=about.word_delimiter,
            do_lower_case=about.lower_case,
        )
