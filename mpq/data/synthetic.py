"""The embedded corpus: English sentences of our own grammar, spoken by eSpeak NG, in LibriSpeech's folder layout.

It lets everything here run with no download and no permission. It is synthetic speech and every table says so.

One chapter is one speaker's `CHAPTER` utterances, made in a fresh process (eSpeak NG's output depends on earlier calls)
and written whole or not at all, so a killed run goes on where it stopped. The folder is named by a hash of the settings
and of `VERSION`; `corpus.json` is written last and holds a hash of the content.
"""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mpq.data import grammar, voices
from mpq.data.espeak import Voice, speak
from mpq.errors import UserError
from mpq.record.atomic import replacing, write_text

VERSION = 1  # raise it when a change makes other audio from the same settings
RATE = 16_000
CHAPTER = 25
SPLITS = ("train", "dev-clean", "dev-other", "test-clean", "test-other")


@dataclass(frozen=True)
class _Chapter:
    """What a worker needs to make one chapter."""

    split: str
    number: int
    utterances: int
    voice: Voice
    seed: tuple[int, int, int]

    @property
    def folder(self) -> str:
        return f"{self.split}/{self.voice.speaker}/{self.number}"


def _chapters(utterances: Mapping[str, int], seed: int) -> Iterator[_Chapter]:
    for index, split in enumerate(SPLITS):
        speakers = voices.UNHEARD if split.endswith("other") else voices.HEARD
        count = utterances.get(split, 0)
        for number in range(-(-count // CHAPTER)):
            size = min(CHAPTER, count - number * CHAPTER)
            yield _Chapter(split, number, size, speakers[number % len(speakers)], (seed, index, number))


def _microphone(audio: np.ndarray, split: str, rng: np.random.Generator) -> np.ndarray:
    """Noise and echo: light on "clean", more on "other", in between and varied on the training set."""
    if split.endswith("clean"):
        return voices.add_noise(audio, rng.uniform(20, 40), rng)
    if split.endswith("other"):
        audio = voices.add_echo(audio, rng.uniform(0.15, 0.35), RATE, rng)
        return voices.add_noise(audio, rng.uniform(12, 25), rng)
    if rng.random() < 0.3:
        audio = voices.add_echo(audio, rng.uniform(0.1, 0.35), RATE, rng)
    return voices.add_noise(audio, rng.uniform(12, 40), rng)


def _make_chapter(root: Path, chapter: _Chapter) -> str:
    """Write one chapter; return the hash of its content."""
    import soundfile
    from scipy.signal import resample_poly

    folder = root / chapter.folder
    if not folder.is_dir():
        rng = np.random.default_rng(chapter.seed)
        prefix = f"{chapter.voice.speaker}-{chapter.number}"
        lines = []
        with replacing(folder) as temporary:
            temporary.mkdir()
            for number in range(chapter.utterances):
                text = grammar.sentence(rng)
                speed = round(chapter.voice.speed * rng.uniform(0.9, 1.15))
                audio, rate = speak(text, chapter.voice, speed, chapter.voice.pitch + int(rng.integers(-8, 9)))
                audio = resample_poly(audio, RATE // 50, rate // 50)
                audio = _microphone(audio, chapter.split, rng)
                audio *= rng.uniform(0.2, 0.9) / np.abs(audio).max()
                soundfile.write(temporary / f"{prefix}-{number:04d}.flac", audio, RATE, subtype="PCM_16")
                lines.append(f"{prefix}-{number:04d} {text}\n")
            (temporary / f"{prefix}.trans.txt").write_text("".join(lines), encoding="utf-8")
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def make(cache: Path | str, utterances: Mapping[str, int], seed: int, processes: int | None = None) -> Path:
    """Make the corpus under `cache` unless it is there; return its folder.

    `utterances` maps a split (`train`, `dev-clean`, ...) to its number of utterances. `processes` defaults to the
    number of cores that this process may use.

    Raises: UserError where a split is unknown or has a negative size.
    """
    for split, count in utterances.items():
        if split not in SPLITS or count < 0:
            raise UserError(f"the embedded corpus has no split {split!r} of {count} utterances; splits: {list(SPLITS)}")
    chapters = list(_chapters(utterances, seed))
    settings = {"version": VERSION, "seed": seed, "utterances": dict(utterances), "chapter": CHAPTER}
    settings["voices"] = [asdict(voice) for voice in voices.HEARD + voices.UNHEARD]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    root = Path(cache) / f"synthetic-{key}"
    if not (root / "corpus.json").is_file():
        hashes = _make_chapters(root, chapters, processes)
        content = hashlib.sha256("".join(f"{name} {hashes[name]}\n" for name in sorted(hashes)).encode()).hexdigest()
        write_text(root / "corpus.json", json.dumps({"hash": content, **settings}, indent=1) + "\n")
    return root


def _make_chapters(root: Path, chapters: list[_Chapter], processes: int | None) -> dict[str, str]:
    import os

    from rich.progress import track

    # A fork server: every chapter starts from one clean process, which never called eSpeak NG or PyTorch.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mpq.data.synthetic", "scipy.signal", "soundfile"])
    workers = processes or len(os.sched_getaffinity(0))
    hashes = {}
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        jobs = {pool.submit(_make_chapter, root, chapter): chapter for chapter in chapters}
        for job in track(as_completed(jobs), "Making the synthetic corpus", total=len(jobs)):
            hashes[jobs[job].folder] = job.result()
    return hashes


def content_hash(root: Path | str) -> str | None:
    """The hash of a corpus that `make` wrote, or None for any other folder."""
    path = Path(root) / "corpus.json"
    return json.loads(path.read_text(encoding="utf-8"))["hash"] if path.is_file() else None
