"""Compress a speech recognition model (CTC, Whisper) to a packed folder.

Without data its weights are rounded, in seconds to minutes. With recordings, GPTQ compensates for the rounding. With
recordings and transcripts (*.trans.txt, as in LibriSpeech) the model is trained (on a CPU only a small one), and its
word error rate is measured on a held-out part.

example: python scripts/quantize.py model=facebook/wav2vec2-base-100h
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpq.cli import command, option, others, required


@dataclass(frozen=True)
class Options:
    """Which model to compress, and how."""

    model: str = required("a folder that transformers wrote, or a name on the Hub, NAME or NAME@REVISION")
    bits: float | None = option(
        None, "average bits per weight, 2 to 8; default, if the model is trained: 3.5", "a number from 2 to 8"
    )
    megabytes: float | None = option(
        None,
        "the size of the file in place of bits, in millions of bytes: the best file that is no larger; "
        "default: 6.5 times smaller than in float32",
        "a number of megabytes above 0, such as 12",
    )
    data: Path | None = option(None, "a folder of recordings")
    output: Path | None = option(None, "the folder of the packed model; default: quantized/<name>")
    method: Literal["auto", "round", "gptq", "norms", "one_stage", "learned_steps"] = option(
        "auto",
        "auto chooses by the available data; norms is gptq for a size, then norms and biases are trained; of "
        "learned_steps bits is what codes take in the coded file",
    )
    updates: int | None = option(
        None,
        "training updates of one_stage and learned_steps, default: 600 for a small model, 2000 for others; of norms, "
        "default: 150 and 28",
    )
    language: str | None = option(None, "spoken in the recordings; only for a multilingual model, which needs it")
    word: tuple[str, ...] = others(
        "settings of scripts/run.py: overwrite=true replaces an older run and output with all that is in it, "
        "root=FOLDER keeps its runs apart"
    )


@command(Options)
def main(chosen: Options) -> None:
    """Compress, then print a summary."""
    from mpq.compress.output import summary
    from mpq.compress.quantize_now import quantize_now  # here, since --help need not wait for it
    from mpq.settings import changes_of

    given = {"trainer.updates": chosen.updates, "model.language": chosen.language}
    changes = changes_of(chosen.word) | {key: value for key, value in given.items() if value is not None}
    where = (chosen.data, chosen.output, chosen.method, changes, chosen.megabytes)
    print(summary(quantize_now(chosen.model, chosen.bits, *where)))


if __name__ == "__main__":
    main()
