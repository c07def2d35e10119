"""Downloads LibriSpeech from OpenSLR, resuming what was interrupted."""

import shutil
import socket
import tarfile
from collections.abc import Sequence
from pathlib import Path

from mpq.errors import UserError
from mpq.files import check_folder

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
