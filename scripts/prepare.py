"""Get the data of a run: download LibriSpeech, arrange those of scale mini, or make the embedded corpus.

An interrupted download resumes where it stopped.

examples: python scripts/prepare.py librispeech splits=dev-clean,test-clean
          python scripts/prepare.py mini test_clean=FOLDER speechocean762=FOLDER
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpq.cli import command, option, positional, tell_unused
from mpq.errors import UserError


@dataclass(frozen=True)
class Options:
    """Which data, and the output."""

    data: Literal["librispeech", "mini", "synthetic"] = positional("which data")
    root: Path = option(Path("data"), "the folder in which LibriSpeech/ or mini/ is created")
    splits: tuple[str, ...] = option((), "of LibriSpeech; default: those of conf/data/librispeech.yaml")
    test_clean: Path | None = option(None, "for mini: the folder test-clean of LibriSpeech")
    speechocean762: Path | None = option(None, "for mini: the folder of speechocean762, with WAVE, train and test")
    cache: Path = option(Path(".cache"), "the folder of the embedded corpus")


_OF_OTHERS = {  # options without effect
    "librispeech": ("test_clean", "speechocean762", "cache"),
    "mini": ("splits", "cache"),
    "synthetic": ("root", "splits", "test_clean", "speechocean762"),
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
    elif chosen.data == "mini":
        if not (chosen.test_clean and chosen.speechocean762):
            raise UserError("mini needs test_clean=FOLDER and speechocean762=FOLDER")
        counts = prepare.arrange_mini(chosen.root / "mini", chosen.test_clean, chosen.speechocean762)
        print(f"{chosen.root / 'mini'} has utterances:", ", ".join(f"{name} {n:,}" for name, n in counts.items()))
        print('Now: experiments/README.md, "Scale mini"')
    else:
        splits = chosen.splits or (*about["train"], *about["test"])
        folder = prepare.download_librispeech(chosen.root, splits)
        print(f"{folder} is there\nNow: {script('run', '+exp=hubert_large_3p5bit', setting('data.root', folder))}")


if __name__ == "__main__":
    main()
