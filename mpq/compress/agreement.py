"""Whether a packed model still writes the texts of its float model, checked where no transcripts tell how good it is.

A Whisper that was rounded to 3.5 bits writes nonsense, a CTC model may not mind. A few recordings tell the two apart;
where there are none, sentences that eSpeak NG speaks do.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mpq.checkpoint.packed import load_model
from mpq.data.librispeech import Utterance, read_split
from mpq.data.synthetic.corpus import make_chapter, plan
from mpq.errors import UserError
from mpq.evaluate.transcribe import transcribe
from mpq.evaluate.wer import word_errors_per_utterance
from mpq.models.loading import speech_model
from mpq.models.speech import Choices, SpeechModel

_log = logging.getLogger(__name__)
_RECORDINGS = 8
_LONGEST = 20.0  # seconds of a recording
_BATCH = 60.0  # seconds of audio
_SPLIT = "test-clean"
_UNUSABLE = 25.0  # percent


@dataclass(frozen=True)
class Agreement:
    """Word error rate of the packed model in percent; references: the float model's texts of so many recordings."""

    wer: float
    words: int
    recordings: int
    made_up: bool

    @property
    def usable(self) -> bool:
        """Whether most of the words are still the float model's."""
        return self.wer < _UNUSABLE

    def sentence(self) -> str:
        """What is printed and written to the model's card."""
        heard = "made-up English sentences" if self.made_up else "recordings"
        texts = f"the float model's own texts of {self.recordings} {heard}"
        return f"{self.wer:.1f} % WER against {texts}, {self.words} words"


def agreement(
    teacher: SpeechModel, packed: Path, choices: Choices, accelerator: str, recordings: Sequence[Utterance], work: Path
) -> Agreement | None:
    """Compare the texts of the float model `teacher` and of the model in the folder `packed`; None if it writes none.

    On a few of `recordings`, or where there are none, on sentences made below the folder `work`. None with a warning,
    too, where they can't be had: what was compressed must not be lost for want of a check.
    """
    short = [utterance for utterance in recordings if utterance.seconds <= _LONGEST]
    chosen = [short[k] for k in sorted(np.random.default_rng(0).permutation(len(short))[:_RECORDINGS])]
    texts = []
    try:
        heard = chosen or _made_up(work)
        for model in (teacher, speech_model(*load_model(packed), choices)):
            model.to_accelerator(accelerator)
            texts.append(transcribe(model, heard, _BATCH, "skip", title="Comparing texts")[0])
    except UserError as error:
        _log.warning("the model's texts are not compared with the float model's: %s", error)
        return None
    errors, words = word_errors_per_utterance(*texts)
    if not words.sum():
        return None
    return Agreement(float(100 * errors.sum() / words.sum()), int(words.sum()), len(errors), not chosen)


def _made_up(work: Path) -> list[Utterance]:
    for name, content in _sentences().items():
        file = work / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return read_split(work, _SPLIT).utterances


@cache
def _sentences() -> dict[str, bytes]:
    """Return the files of the made-up sentences, by path; eSpeak NG would speak them otherwise a second time."""
    # Here and not in processes, which a user's program without `if __name__ == "__main__"` can't start.
    with TemporaryDirectory() as folder:
        for chapter in plan({_SPLIT: _RECORDINGS}, seed=0):
            make_chapter(Path(folder), chapter)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}
