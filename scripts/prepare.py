"""Get the data of a run: `python scripts/prepare.py librispeech`, `... synthetic`, or arrange that of scale mini:

python scripts/prepare.py mini --test-clean FOLDER --speechocean762 FOLDER
"""

import argparse
from pathlib import Path

from mpq.cli import guarded
from mpq.conf import CONF


@guarded
def main() -> None:
    """Read the command line, get the data, tell the command that uses it."""
    parser = argparse.ArgumentParser(
        description="Get the data of a run. A killed download goes on where it stopped.",
        epilog="example: python scripts/prepare.py librispeech --splits dev-clean",
    )
    parser.add_argument(
        "data",
        choices=["librispeech", "mini", "synthetic"],
        help="LibriSpeech, downloaded; that of scale mini, from two folders of yours; the embedded corpus, made here",
    )
    parser.add_argument(
        "--root", default="data", metavar="FOLDER", help="where <root>/LibriSpeech or <root>/mini goes (default: data)"
    )
    parser.add_argument("--test-clean", metavar="FOLDER", help="for mini: the folder test-clean of LibriSpeech")
    parser.add_argument(
        "--speechocean762", metavar="FOLDER", help="for mini: the folder of speechocean762, with WAVE, train and test"
    )
    parser.add_argument(
        "--splits", nargs="+", metavar="SPLIT", help="of LibriSpeech (default: those of conf/data/librispeech.yaml)"
    )
    parser.add_argument("--cache", default=".cache", metavar="FOLDER", help="of the embedded corpus (default: .cache)")
    chosen = parser.parse_args()
    from omegaconf import OmegaConf  # here, so that --help doesn't wait for it

    conf = OmegaConf.load(CONF / "data" / f"{chosen.data}.yaml")
    if chosen.data == "synthetic":
        from mpq.data.synthetic import corpus

        folder = corpus.make(chosen.cache, **conf.corpus)
        print(f"{folder} (content {corpus.content_hash(folder)})\nNow: python scripts/run.py cache={chosen.cache}")
        return
    if chosen.data == "mini":
        if not (chosen.test_clean and chosen.speechocean762):
            parser.error("mini needs --test-clean FOLDER and --speechocean762 FOLDER")
        from mpq.data import prepare

        counts = prepare.arrange_mini(Path(chosen.root) / "mini", chosen.test_clean, chosen.speechocean762)
        told = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        print(f'{chosen.root}/mini has utterances: {told}\nNow: experiments/README.md, "Scale mini"')
        return
    from mpq.data import prepare

    folder = prepare.download_librispeech(chosen.root, chosen.splits or [*conf.train, *conf.test])
    print(f"{folder} is there\nNow: python scripts/run.py +exp=hubert_large_3p5bit data.root={folder}")


if __name__ == "__main__":
    main()
