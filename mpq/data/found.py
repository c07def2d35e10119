"""What a folder of recordings is good for: training, where there are transcripts, or else calibration."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mpq.data import audio
from mpq.data.librispeech import Split, Utterance, files_below
from mpq.errors import UserError


@dataclass(frozen=True)
class Found:
    """A folder in the words of `conf/data`; a split in both `train` and `test` is divided (`mpq.data.corpus`)."""

    root: Path
    train: list[str]
    test: list[str]
    transcribed: bool


def find(folder: Path) -> Found:
    """Tell the splits of `folder`, and whether it has transcripts (`*.trans.txt`).

    With transcripts at `<split>/<speaker>/<chapter>/`, as in LibriSpeech, the splits whose names begin with "train" are
    trained on and the others evaluated on; with transcripts anywhere else the folder itself is the only split.

    Raises: UserError where it is no folder or holds no audio.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name one that holds recordings")
    files = files_below(folder.resolve())
    if not any(file.suffix.lower() in audio.SUFFIXES for file in files):
        raise UserError(f"{folder} holds no audio: no file in it ends in one of {', '.join(audio.SUFFIXES)}")
    places = [file.relative_to(folder.resolve()).parts for file in files if file.name.endswith(".trans.txt")]
    if not places:
        return Found(folder.resolve(), [], [], transcribed=False)
    if any(len(parts) != 4 for parts in places):
        only = [folder.resolve().name]
        return Found(folder.resolve().parent, only, only, transcribed=True)
    splits = sorted({parts[0] for parts in places})
    train = [split for split in splits if split.startswith("train")] or splits
    test = [split for split in splits if split not in train] or train
    return Found(folder.resolve(), train, test, transcribed=True)


def recordings(folder: Path) -> Split:
    """All recordings below `folder`, without transcripts; what can't be read is left out with a message.

    Raises: UserError where none can be read.
    """
    paths = [file for file in files_below(folder) if file.suffix.lower() in audio.SUFFIXES]
    with ThreadPoolExecutor() as pool:  # opening files waits for the disk
        headers = list(pool.map(_header, paths))
    good = [
        Utterance(str(path.relative_to(folder)), folder.name, path.parent.name, path, "", seconds)
        for path, seconds in zip(paths, headers, strict=True)
        if not isinstance(seconds, str)
    ]
    problems = [message for message in headers if isinstance(message, str)]
    if not good:
        raise UserError(f"no recording in {folder} can be read; the first: {problems[0]}")
    return Split(folder.name, good, problems)


def _header(path: Path) -> float | str:
    try:
        return audio.header(path)
    except audio.BadAudioError as error:
        return str(error)
