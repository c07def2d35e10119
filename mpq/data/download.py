"""Gets LibriSpeech from OpenSLR with torchaudio's own downloader, split by split."""

import shutil
import socket
import tarfile
from collections.abc import Sequence
from pathlib import Path

from mpq.errors import UserError

SPLITS = (
    *("train-clean-100", "train-clean-360", "train-other-500"),
    *("dev-clean", "dev-other", "test-clean", "test-other"),
)
FOLDER = "LibriSpeech"
_SILENT_SECONDS = 30.0  # a server that sends nothing for so long is taken for gone


def librispeech(root: Path | str, splits: Sequence[str]) -> Path:
    """Download and unpack `splits` into `<root>/LibriSpeech` unless they are there; return that folder.

    A split appears there whole or not at all. After a kill the same call goes on with the split that was under way.

    Raises: UserError where a split is unknown or can't be downloaded.
    """
    for split in splits:
        if split not in SPLITS:
            raise UserError(f"LibriSpeech has no split {split!r}; it has {', '.join(SPLITS)}")
    folder = Path(root) / FOLDER
    for split in splits:
        if not (folder / split).is_dir():
            _fetch(Path(root), split)
    return folder


def _fetch(root: Path, split: str) -> None:
    from torchaudio.datasets import LIBRISPEECH

    staging = root / ".download"  # torchaudio takes a half-unpacked split for a whole one, so it works aside
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
    except (OSError, EOFError, RuntimeError, tarfile.TarError) as error:  # no network, a cut or damaged archive
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
