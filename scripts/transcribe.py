"""Print what is said in audio files: `python scripts/transcribe.py talk.wav more/*.flac --model FOLDER [--json]`."""

import argparse
import sys
from pathlib import Path

from mpq.cli import guarded

TINY = Path(__file__).resolve().parent.parent / "mpq" / "models" / "tiny_wav2vec2"


@guarded
def main() -> int:
    """Read the command line and transcribe file after file; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Print what is said in audio files of any length, sample rate and number of channels. "
        "A file that can't be read costs one line on standard error and exit status 1; the others go on.",
        epilog="example: python scripts/transcribe.py talk.wav more/*.flac --model FOLDER",
    )
    parser.add_argument("audio", nargs="+", type=Path, help="wav, flac, ogg, opus or mp3; with ffmpeg, m4a, webm etc.")
    parser.add_argument(
        "--model",
        metavar="FOLDER_OR_NAME",
        default=str(TINY),
        help="a folder that mpq or transformers wrote, a name on the Hub, or an .onnx file of scripts/export.py "
        "(default: the shipped tiny_wav2vec2, which knows the embedded corpus's 473 words)",
    )
    parser.add_argument("--json", action="store_true", help="an object a line: file, seconds, text, times of the words")
    parser.add_argument("--chunk-seconds", type=float, default=30.0, help="longer recordings are cut (default: 30)")
    parser.add_argument("--margin-seconds", type=float, default=5.0, help="of a chunk, given up where cut (default: 5)")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto", help="where PyTorch computes")
    chosen = parser.parse_args()
    from mpq.deploy.transcribe import (
        open_recognizer,
        transcribe_files,  # here, since --help need not wait for it
    )

    recognizer = open_recognizer(chosen.model, chosen.device)
    bad = transcribe_files(recognizer, chosen.audio, chosen.json, chosen.chunk_seconds, chosen.margin_seconds)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
