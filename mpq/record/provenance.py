"""Where a result comes from: code, command, libraries, machine, data and date.

Records are published, so nothing here may identify a person or a place: no host name, user name or absolute path.
"""

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from mpq.cores import usable_cores
from mpq.record.result import Data, Hardware, Provenance

REPOSITORY = Path(__file__).resolve().parents[2]
# A path begins at the argument's start or after "=", ":", "[", a quote and the like; a URL's "//" is not a path.
_ABSOLUTE_PATH = re.compile(r"""(?:file:/+|(?<![\w:/.~-])/+|(?<=:)/(?!/))[^,'"\]}]*""")


def collect(
    data: Data, argv: Sequence[str] | None = None, repository: Path = REPOSITORY, teacher: str | None = None
) -> Provenance:
    """Describe this process, its machine and the code in `repository`; `argv` is the command line (sys.argv)."""
    commit, dirty = _git_state(repository)
    return Provenance(
        commit=commit,
        dirty=dirty,
        command=command(sys.argv if argv is None else argv, repository),
        versions=versions(),
        hardware=hardware(),
        data=data,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        teacher=teacher,
    )


def command(argv: Sequence[str], repository: Path = REPOSITORY) -> str:
    """Return the command line to run in `repository`; absolute paths outside it become `<path>`."""
    return shlex.join(["python", *(_without_paths(word, repository.resolve()) for word in argv)])


def versions() -> dict[str, str]:
    """Return the versions of Python, mpq and each installed dependency that mpq declares."""
    found = {"python": platform.python_version()}
    try:
        declared = [line for line in metadata.requires("mpq") or [] if "extra ==" not in line]
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return found
    for name in ["mpq", *(re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in declared)]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> Hardware:
    """Return the CPU's model, the cores that this process may use, the memory in bytes and the names of the GPUs."""
    import torch  # here, because reading records needs no torch

    known = hasattr(os, "sysconf")  # not on Windows, where the record says 0
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 0
    gpus = tuple(torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count()))
    return Hardware(_cpu_model(), usable_cores(), memory, gpus)


def _without_paths(word: str, repository: Path) -> str:
    def shorten(match: re.Match[str]) -> str:
        path = Path(match.group())
        inside = path.is_absolute() and path.resolve().is_relative_to(repository)
        return str(path.resolve().relative_to(repository)) if inside else "<path>"

    return _ABSOLUTE_PATH.sub(shorten, word)


def _git_state(repository: Path) -> tuple[str | None, bool | None]:
    """Return the commit and whether anything but experiments/ differs from it; (None, None) outside git."""
    # A package installed inside somebody else's repository must not claim that repository's commit.
    top = _git(repository, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != repository.resolve():
        return None, None
    commit = _git(repository, "rev-parse", "HEAD")
    changes = _git(repository, "status", "--porcelain", "--", ".", ":(exclude)experiments")
    return (commit, changes != "") if commit and changes is not None else (None, None)


def _git(repository: Path, *arguments: str) -> str | None:
    # Inside a git hook these variables may point to a different repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, text=True, env=environment, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()
