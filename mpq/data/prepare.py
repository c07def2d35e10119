"""Prepares recorded corpora: downloads LibriSpeech from OpenSLR, and arranges the two corpora of scale mini.

Scale mini needs both corpora in LibriSpeech's layout, with the same speakers per split as in our records. The audio is
linked, not copied. (For our records it was re-encoded to Opus, so your figures will differ.)
"""

import json
import shutil
import socket
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpq.data import audio
from mpq.data.librispeech import lines_of
from mpq.errors import UserError
from mpq.files import check_folder, replacing

SPLITS = (
    *("train-clean-100", "train-clean-360", "train-other-500"),
    *("dev-clean", "dev-other", "test-clean", "test-other"),
)
FOLDER = "LibriSpeech"
_GIGABYTES = dict(zip(SPLITS, (6.3, 23, 30, 0.34, 0.31, 0.35, 0.33), strict=True))  # of an archive, by OpenSLR's page
_SILENT_SECONDS = 30.0  # a server that sends nothing for this long is considered gone


def download_librispeech(root: Path | str, splits: Sequence[str]) -> Path:
    """Download and unpack `splits` into `<root>/LibriSpeech` unless they exist; return that folder.

    A split appears there whole or not at all. After a kill the same call continues with the unfinished split.

    Raises: UserError if a split is unknown or can't be downloaded.
    """
    for split in splits:
        if split not in SPLITS:
            raise UserError(f"LibriSpeech has no split {split!r}; it has {', '.join(SPLITS)}")
    folder = Path(root) / FOLDER
    missing = [split for split in splits if not (folder / split).is_dir()]
    # An archive stays until it is unpacked, which takes as much again.
    check_folder(folder, 1e9 * sum(_GIGABYTES[split] for split in missing) + 1e9 * _largest(missing))
    for split in splits:
        if not (folder / split).is_dir():
            _fetch(Path(root), split)
    return folder


def _largest(splits: Sequence[str]) -> float:
    return max((_GIGABYTES[split] for split in splits), default=0.0)


def _fetch(root: Path, split: str) -> None:
    from torchaudio.datasets import LIBRISPEECH

    staging = root / ".download"  # torchaudio takes a half-unpacked split for a complete one, so it works elsewhere
    archive, unpacked = staging / f"{split}.tar.gz", staging / FOLDER / split
    shutil.rmtree(unpacked, ignore_errors=True)
    staging.mkdir(parents=True, exist_ok=True)
    for partial in staging.glob("*.partial"):
        partial.unlink()
    print(f"Getting {split} from openslr.org")
    waited = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENT_SECONDS)
    try:
        LIBRISPEECH(staging, url=split, folder_in_archive=FOLDER, download=True)
    except (OSError, EOFError, RuntimeError, tarfile.TarError) as error:  # no network, or a damaged archive
        if not isinstance(error, OSError):
            archive.unlink(missing_ok=True)
        raise UserError(
            f"LibriSpeech's {split} could not be downloaded from openslr.org ({error}): run the same command where "
            f"there is a network, or put {archive.name} into {staging} yourself and run it again"
        ) from None
    finally:
        socket.setdefaulttimeout(waited)
    (root / FOLDER).mkdir(exist_ok=True)
    unpacked.rename(root / FOLDER / split)
    archive.unlink()


_SPEAKERS = Path(__file__).resolve().parent / "mini_speakers.json"


@dataclass(frozen=True)
class _Recording:
    """One utterance as it was downloaded."""

    speaker: str
    chapter: str
    number: str
    path: Path
    text: str


def arrange_mini(root: Path | str, test_clean: Path | str, speechocean762: Path | str) -> Counter[str]:
    """Make `<root>/{librispeech-mini,speechocean762}/<split>/<speaker>/<chapter>/`; count the utterances of each split.

    `test_clean` is LibriSpeech's folder of that name, as OpenSLR 12 ships it; `speechocean762` is the folder of OpenSLR
    101 with its `WAVE`, `train` and `test`. Each corpus appears whole or not at all.

    Raises: UserError if one is already arranged, is not such a folder, or lacks a speaker or a file.
    """
    check_folder(root)
    splits = json.loads(_SPEAKERS.read_text(encoding="utf-8"))
    read = list(_librispeech(Path(test_clean)))
    found = {
        "librispeech-mini": {split: read for split in splits["librispeech-mini"]},
        "speechocean762": {split: list(_speechocean(Path(speechocean762), split)) for split in ("train", "test")},
    }
    counts: Counter[str] = Counter()
    for corpus, recordings in found.items():
        place = Path(root) / corpus
        if place.exists():
            raise UserError(f"{place} already exists: remove it to arrange it again")
        with replacing(place) as folder:
            for split, numbers in splits[corpus].items():
                speakers = set(map(str, numbers))
                if missing := speakers - {recording.speaker for recording in recordings[split]}:
                    raise UserError(f"{corpus} must have speaker {min(missing)} for its split {split}, but does not")
                chosen = [recording for recording in recordings[split] if recording.speaker in speakers]
                counts[f"{corpus}/{split}"] = _write(folder / split, chosen)
    return counts


def _librispeech(folder: Path) -> Iterator[_Recording]:
    transcripts = sorted(folder.glob("*/*/*.trans.txt"))
    if not transcripts:
        raise UserError(f"{folder} must be LibriSpeech's test-clean, <speaker>/<chapter>/*.trans.txt, but has none")
    for path in transcripts:
        sounds = {file.stem: file for file in path.parent.iterdir() if file.suffix.lower() in audio.SUFFIXES}
        for name, text in _table(path).items():
            sound = sounds.get(name, path.parent / f"{name}.flac")
            yield _Recording(path.parent.parent.name, path.parent.name, name.rpartition("-")[2], sound, text)


def _speechocean(folder: Path, split: str) -> Iterator[_Recording]:
    """Yield the recordings of one Kaldi folder: `text`, `utt2spk` and `wav.scp`, with paths relative to `folder`."""
    names = ("text", "utt2spk", "wav.scp")
    if not all((folder / split / name).is_file() for name in names):
        raise UserError(f"{folder} must be speechocean762 with {', '.join(f'{split}/{name}' for name in names)}")
    texts, speakers, paths = (_table(folder / split / name) for name in names)
    for name, text in texts.items():
        if not speakers.get(name, "").isdecimal() or name not in paths:
            raise UserError(f"{folder / split} must have the speaker and the path of utterance {name}, but does not")
        # The last four digits of an utterance's name are its number, those before are its speaker's.
        yield _Recording(str(int(speakers[name])), "0", name[-4:], folder / paths[name], text)


def _table(path: Path) -> Mapping[str, str]:
    """Return the lines of a file: first word -> rest of the line."""
    lines = (line.split(maxsplit=1) for line in lines_of(path))
    return {words[0]: words[1].strip() for words in lines if len(words) == 2}


def _write(folder: Path, recordings: list[_Recording]) -> int:
    """Link the audio and write one transcript file per chapter; return the number of utterances."""
    lines: dict[Path, list[str]] = {}
    for one in recordings:
        if not one.path.is_file():
            raise UserError(f"the audio file {one.path} is missing, although it has a transcript")
        chapter = folder / one.speaker / one.chapter
        chapter.mkdir(parents=True, exist_ok=True)
        name = f"{one.speaker}-{one.chapter}-{one.number}"
        (chapter / f"{name}{one.path.suffix.lower()}").symlink_to(one.path.resolve())
        lines.setdefault(chapter / f"{one.speaker}-{one.chapter}.trans.txt", []).append(f"{name} {one.text.upper()}\n")
    for path, texts in lines.items():
        path.write_text("".join(texts), encoding="utf-8")
    return len(recordings)
