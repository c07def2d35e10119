"""Get the data of a run: `python scripts/prepare.py librispeech` or `python scripts/prepare.py synthetic`."""

import argparse
from pathlib import Path

from mpq.errors import UserError

CONF = Path(__file__).resolve().parent.parent / "conf"


def main() -> None:
    """Read the command line, get the data, tell the command that uses it."""
    parser = argparse.ArgumentParser(description="Get the data of a run. A killed download goes on where it stopped.")
    parser.add_argument("data", choices=["librispeech", "synthetic"])
    parser.add_argument("--root", default="data", help="LibriSpeech goes to <root>/LibriSpeech (default: data)")
    parser.add_argument("--splits", nargs="+", help="of LibriSpeech (default: those of conf/data/librispeech.yaml)")
    parser.add_argument("--cache", default=".cache", help="the folder of the synthetic corpus (default: .cache)")
    chosen = parser.parse_args()
    from omegaconf import OmegaConf  # here, so that --help doesn't wait for it

    conf = OmegaConf.load(CONF / "data" / f"{chosen.data}.yaml")
    if chosen.data == "synthetic":
        from mpq.data import synthetic

        folder = synthetic.make(chosen.cache, **conf.corpus)
        print(f"{folder} (content {synthetic.content_hash(folder)})\nNow: python scripts/run.py cache={chosen.cache}")
        return
    from mpq.data import download

    folder = download.librispeech(chosen.root, chosen.splits or [*conf.train, *conf.test])
    print(f"{folder} is there\nNow: python scripts/run.py +exp=hubert_large_3p5bit data.root={folder}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
