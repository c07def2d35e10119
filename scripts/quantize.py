"""Compress a CTC model now: `python scripts/quantize.py --model NAME_OR_FOLDER --bits 3.5 [--data FOLDER]`."""

import argparse
from pathlib import Path

from mpq.cli import guarded


@guarded
def main() -> None:
    """Read the command line, compress, say what came out."""
    parser = argparse.ArgumentParser(
        description="Compress a CTC model to a packed folder. Without --data its weights are rounded, in seconds to "
        "minutes; recordings make up for the rounding (GPTQ); recordings with transcripts (*.trans.txt, as in "
        "LibriSpeech) train it (on a CPU only a small model) and tell what it costs in words, on a part held out.",
        epilog="example: python scripts/quantize.py --model facebook/wav2vec2-base-100h",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="FOLDER_OR_NAME",
        help="a folder that transformers wrote, or a name on the Hub",
    )
    parser.add_argument("--bits", type=float, default=3.5, help="a weight, on average: 2 to 8 (default: 3.5)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="a folder of recordings")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the packed model goes (default: quantized/<name>)"
    )
    parser.add_argument(
        "--method", default="auto", choices=["auto", "round", "gptq", "one_stage"], help="default: what the data allow"
    )
    parser.add_argument("--updates", type=int, help="of one_stage (default: 600 for a small model, 2000 for others)")
    chosen = parser.parse_args()
    from mpq.compress.output import summary
    from mpq.compress.quantize_now import quantize_now  # here, since --help need not wait for it

    changes = {} if chosen.updates is None else {"trainer.updates": chosen.updates}
    print(summary(quantize_now(chosen.model, chosen.bits, chosen.data, chosen.output, chosen.method, changes)))


if __name__ == "__main__":
    main()
