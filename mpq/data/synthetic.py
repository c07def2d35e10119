"""The embedded corpus: English sentences of our own grammar, spoken by eSpeak NG, in LibriSpeech's folder layout.

It lets everything here run with no download and no permission. It is synthetic speech and every table says so.

One chapter is one speaker's `CHAPTER` utterances, made in a fresh process (eSpeak NG's output depends on earlier calls)
and written whole or not at all, so a killed run goes on where it stopped. The folder is named by a hash of the settings
and of `VERSION`; `corpus.json` is written last and holds a hash of the content.
"""

import fcntl
import hashlib
import json
import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from mpq.data import voices
from mpq.data.chapter import CHAPTER, SPLITS, Chapter, make_chapter, plan
from mpq.errors import UserError
from mpq.record.atomic import write_text

VERSION = 3  # raise it when a change makes other audio from the same settings


def check_utterances(utterances: Mapping[str, int]) -> None:
    """Raise UserError unless `utterances` maps splits of this corpus to whole numbers."""
    for split, count in utterances.items():
        if split not in SPLITS:
            raise UserError(f"the embedded corpus has no split {split!r}; it can have {', '.join(SPLITS)}")
        if not isinstance(count, int) or count < 0:
            raise UserError(f"data.corpus.utterances.{split}={count} must be a whole number, 0 or more")


def make(cache: Path | str, utterances: Mapping[str, int], seed: int, processes: int | None = None) -> Path:
    """Make the corpus under `cache` unless it is there; return its folder.

    `utterances` maps a split (`train`, `dev-clean`, ...) to its number of utterances. `processes` defaults to the
    number of cores that this process may use.

    Raises: UserError where a split is unknown, its size is no whole number or eSpeak NG is not installed.
    """
    check_utterances(utterances)
    chapters = list(plan(utterances, seed))
    settings = {"version": VERSION, "seed": seed, "utterances": dict(utterances), "chapter": CHAPTER}
    settings["voices"] = [asdict(voice) for voice in voices.HEARD + voices.UNHEARD]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    root = Path(cache) / f"synthetic-{key}"
    if not _whole(root, chapters):
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two runs that start together the second waits for the first
            if not _whole(root, chapters):
                hashes = _make_chapters(root, chapters, processes)
                lines = "".join(f"{name} {hashes[name]}\n" for name in sorted(hashes))
                content = hashlib.sha256(lines.encode()).hexdigest()
                write_text(root / "corpus.json", json.dumps({"hash": content, **settings}, indent=1) + "\n")
    return root


def _whole(root: Path, chapters: list[Chapter]) -> bool:
    return (root / "corpus.json").is_file() and all((root / chapter.folder).is_dir() for chapter in chapters)


def _make_chapters(root: Path, chapters: list[Chapter], processes: int | None) -> dict[str, str]:
    from rich.progress import track

    # A fork server: every chapter starts from one clean process, which never called eSpeak NG or PyTorch. It imports
    # once what every child needs, and "hydra" because each child imports what the running script does.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mpq.data.synthetic", "scipy.signal", "soundfile", "hydra", "mpq.settings"])
    hashes = {}
    pool = ProcessPoolExecutor(processes or _cores(), mp_context=context, max_tasks_per_child=1)
    try:
        jobs = {pool.submit(make_chapter, root, chapter): chapter for chapter in chapters}
        for job in track(as_completed(jobs), "Making the synthetic corpus", total=len(jobs)):
            hashes[jobs[job].folder] = job.result()
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C: don't make the other chapters first
    return hashes


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def content_hash(root: Path | str) -> str:
    """The hash of the audio and the transcripts of a corpus that `make` wrote."""
    return json.loads((Path(root) / "corpus.json").read_text(encoding="utf-8"))["hash"]
