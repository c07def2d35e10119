"""Get the data of a run: download LibriSpeech, or make the embedded corpus.

An interrupted download resumes where it stopped.

example: python scripts/prepare.py librispeech splits=dev-clean,test-clean
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpq.cli import command, option, positional, tell_unused


@dataclass(frozen=True)
class Options:
    """Which data, and the output."""

    data: Literal["librispeech", "synthetic"] = positional("which data")
    root: Path = option(Path("data"), "the folder in which LibriSpeech/ is created")
    splits: tuple[str, ...] = option((), "of LibriSpeech; default: those of conf/data/librispeech.yaml")
    cache: Path = option(Path(".cache"), "the folder of the embedded corpus")


_OF_OTHERS = {  # options without effect
    "librispeech": ("cache",),
    "synthetic": ("root", "splits"),
}


@command(Options)
def main(chosen: Options) -> None:
    """Get the data, and print the next command."""
    from mpq import conf  # here, since --help need not wait for it
    from mpq.commands import script, setting
    from mpq.data import prepare
    from mpq.data.synthetic import corpus

    tell_unused(chosen, _OF_OTHERS[chosen.data], f"{chosen.data} does not use it")
    about = conf.read("data", chosen.data)
    if chosen.data == "synthetic":
        folder = corpus.make(chosen.cache, **about["corpus"])
        print(f"{folder} (content {corpus.content_hash(folder)})")
        print(f"Now: {script('run', setting('cache', chosen.cache))}")
    else:
        splits = chosen.splits or (*about["train"], *about["test"])
        folder = prepare.download_librispeech(chosen.root, splits)
        print(f"{folder} is there\nNow: {script('run', '+exp=hubert_large_3p5bit', setting('data.root', folder))}")


if __name__ == "__main__":
    main()
