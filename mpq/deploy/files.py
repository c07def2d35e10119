"""Transcribing files one after the other: a bad one costs a sentence, not the others."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mpq.data import audio
from mpq.deploy.chunks import MARGIN, SECONDS
from mpq.deploy.recognizer import Recognizer
from mpq.deploy.transcript import Transcript


def transcribe_files(
    recognizer: Recognizer,
    paths: Sequence[Path],
    as_json: bool = False,
    seconds: float = SECONDS,
    margin: float = MARGIN,
) -> int:
    """Print the text of each file, or with `as_json` one object a line; return how many files could not be read.

    One file gives its text alone, several give `<file><tab><text>`. What is wrong with a file goes to standard error.
    Chunks are of `seconds`, with a `margin` (seconds) given up at inner ends.

    Raises: UserError where the margins leave nothing of a chunk.
    """
    bad = 0
    for path in _tracked(paths):
        try:
            with audio.stream(path, recognizer.rate) as recording:
                found = recognizer.transcribe(recording, seconds, margin)
        except audio.BadAudioError as error:
            bad += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        if as_json:
            print(_object(path, found, recording.samples / recognizer.rate), flush=True)
        else:
            print(found.text if len(paths) == 1 else f"{path}\t{found.text}", flush=True)
    return bad


def _object(path: Path, found: Transcript, seconds: float) -> str:
    return json.dumps({"file": str(path), "seconds": round(seconds, 3), **asdict(found)}, ensure_ascii=False)


def _tracked(paths: Sequence[Path]) -> Iterator[Path]:
    """The paths, under a bar on standard error where that is a terminal and there are several."""
    console = Console(stderr=True)
    if len(paths) == 1 or not console.is_terminal:
        yield from paths
        return
    columns = (TextColumn("Transcribing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Text for the same terminal must go above the bar; text for a file or a pipe must not go to the bar's console.
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        yield from progress.track(paths)
