"""The embedded corpus: English sentences from our own grammar, spoken by eSpeak NG, in LibriSpeech's folder layout.

With it everything here runs without a download or a licence. It is synthetic speech, and every table says so.

A chapter is `CHAPTER` utterances of one speaker. Each is made in a fresh process (eSpeak NG's output depends on earlier
calls) and written atomically, so a killed run resumes where it stopped. The folder is named by a hash of the settings
and `VERSION`; `corpus.json` is written last and holds a hash of the content.
"""

import hashlib
import io
import json
import multiprocessing
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from mpq.cores import usable_cores
from mpq.data.synthetic import grammar, voices
from mpq.data.synthetic.espeak import Voice, speak
from mpq.errors import UserError
from mpq.files import check_folder, replacing, write_text
from mpq.progress import track

RATE = 16_000  # Hz
CHAPTER = 25  # utterances
_BYTES = 80_000  # of an utterance, rounded up
SPLITS = ("train", "dev-clean", "dev-other", "test-clean", "test-other")


@dataclass(frozen=True)
class Chapter:
    """What a worker needs to make one chapter."""

    split: str
    number: int
    utterances: int
    voice: Voice
    seed: tuple[int, int, int]

    @property
    def folder(self) -> str:
        """Its place in the corpus: split, speaker, number."""
        return f"{self.split}/{self.voice.speaker}/{self.number}"


def plan(utterances: Mapping[str, int], seed: int) -> Iterator[Chapter]:
    """Yield the chapters of a corpus; training speakers take turns in train and "clean", new ones in "other"."""
    speakers_of = {"train": voices.HEARD, "clean": voices.CLEAN, "other": voices.UNHEARD}
    for index, split in enumerate(SPLITS):
        speakers = speakers_of[split.rpartition("-")[2]]
        count = utterances.get(split, 0)
        for number in range(-(-count // CHAPTER)):
            size = min(CHAPTER, count - number * CHAPTER)
            yield Chapter(split, number, size, speakers[number % len(speakers)], (seed, index, number))


def _microphone(audio: np.ndarray, split: str, rng: np.random.Generator) -> np.ndarray:
    """Add noise and echo: little on "clean", more on "other", varying in between on the training set."""
    if split.endswith("clean"):
        return voices.add_noise(audio, rng.uniform(20, 40), rng)
    if split.endswith("other"):
        audio = voices.add_echo(audio, rng.uniform(0.15, 0.35), RATE, rng)
        return voices.add_noise(audio, rng.uniform(12, 25), rng)
    if rng.random() < 0.3:
        audio = voices.add_echo(audio, rng.uniform(0.1, 0.35), RATE, rng)
    return voices.add_noise(audio, rng.uniform(12, 40), rng)


def make_chapter(root: Path, chapter: Chapter) -> str:
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
                written = io.BytesIO()  # because soundfile does not say why a disk takes no more
                soundfile.write(written, audio, RATE, subtype="PCM_16", format="FLAC")
                (temporary / f"{prefix}-{number:04d}.flac").write_bytes(written.getvalue())
                lines.append(f"{prefix}-{number:04d} {text}\n")
            (temporary / f"{prefix}.trans.txt").write_text("".join(lines), encoding="utf-8")
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


VERSION = 3  # increase it when a change makes different audio from the same settings


def check_utterances(utterances: Mapping[str, int]) -> None:
    """Raise UserError unless `utterances` maps splits of this corpus to whole numbers."""
    for split, count in utterances.items():
        if split not in SPLITS:
            raise UserError(f"the embedded corpus has no split {split!r}; it can have {', '.join(SPLITS)}")
        if not isinstance(count, int) or count < 0:
            raise UserError(f"data.corpus.utterances.{split}={count} must be a whole number, 0 or more")


def make(cache: Path | str, utterances: Mapping[str, int], seed: int, processes: int | None = None) -> Path:
    """Make the corpus under `cache` unless it exists; return its folder.

    `utterances` maps a split (`train`, `dev-clean`, ...) to its number of utterances. `processes` defaults to the
    number of cores that this process may use.

    Raises: UserError if a split is unknown, its size is not a whole number, or eSpeak NG is not installed.
    """
    check_utterances(utterances)
    chapters = list(plan(utterances, seed))
    settings = {"version": VERSION, "seed": seed, "utterances": dict(utterances), "chapter": CHAPTER}
    settings["voices"] = [asdict(voice) for voice in voices.HEARD + voices.UNHEARD]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    root = Path(cache) / f"synthetic-{key}"
    if not _whole(root, chapters):
        check_folder(root, _BYTES * sum(utterances.values()))
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):  # if two runs start together, the second waits for the first
            if not _whole(root, chapters):
                hashes = _make_chapters(root, chapters, processes)
                lines = "".join(f"{name} {hashes[name]}\n" for name in sorted(hashes))
                content = hashlib.sha256(lines.encode()).hexdigest()
                write_text(root / "corpus.json", json.dumps({"hash": content, **settings}, indent=1) + "\n")
    return root


def _whole(root: Path, chapters: list[Chapter]) -> bool:
    return (root / "corpus.json").is_file() and all((root / chapter.folder).is_dir() for chapter in chapters)


def _make_chapters(root: Path, chapters: list[Chapter], processes: int | None) -> dict[str, str]:
    # A fork server: every chapter starts from one clean process that never called eSpeak NG or PyTorch. It imports
    # once what every child needs, including "hydra", because each child imports what the running script does.
    # Windows has none, and starts every child anew.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        needed = ["mpq.data.synthetic.corpus", "scipy.signal", "soundfile", "hydra", "mpq.settings"]
        context.set_forkserver_preload(needed)
    hashes = {}
    # At Ctrl-C workers finish what they have begun: inside a callback of eSpeak NG they could only print a traceback.
    ignore = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    pool = ProcessPoolExecutor(processes or usable_cores(), mp_context=context, max_tasks_per_child=1, **ignore)
    try:
        jobs = {pool.submit(make_chapter, root, chapter): chapter for chapter in chapters}
        for job in track(as_completed(jobs), "Making the synthetic corpus", "chapters", total=len(jobs)):
            hashes[jobs[job].folder] = job.result()
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, don't make the remaining chapters first
    return hashes


def content_hash(root: Path | str) -> str:
    """Return the hash of the audio and the transcripts of a corpus that `make` wrote."""
    return json.loads((Path(root) / "corpus.json").read_text(encoding="utf-8"))["hash"]
