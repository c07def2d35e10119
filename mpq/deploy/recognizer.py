"""A model that turns samples into text, wherever it runs: PyTorch for folders and Hub names, ONNX Runtime for `.onnx`.

Both hear one recording at a time, without padding, so that a text never depends on its neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpq.deploy.chunks import MARGIN, SECONDS, chunked_logits
from mpq.deploy.transcript import Transcript, transcript
from mpq.errors import UserError


@dataclass(frozen=True)
class Recognizer:
    """`logits` gives frames `[frames, vocabulary]` of samples `[time]` at `rate` Hz, one frame every `step` samples.

    A `step` of None says that it is not known, and no recording is cut then.
    """

    logits: Callable[[np.ndarray], np.ndarray]
    tokenizer: Any
    rate: int
    step: int | None

    def transcribe(self, samples: np.ndarray, seconds: float = SECONDS, margin: float = MARGIN) -> Transcript:
        """What is said in samples `[time]`, heard in chunks of `seconds` that overlap by two margins (seconds).

        Raises: UserError where the margins leave nothing of a chunk.
        """
        if self.step is None:
            frames = self.logits(samples)
        else:
            size, inner = round(seconds * self.rate), round(margin * self.rate)
            frames = chunked_logits(self.logits, samples, size, inner, self.step)
        return transcript(frames.argmax(-1), self.tokenizer, (self.step or 0) / self.rate)


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
    raise NotImplementedError
