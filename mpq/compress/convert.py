"""Turns a packed folder of one version of the format into the other: the same weights, coded or only packed."""

import shutil
from pathlib import Path

from safetensors.torch import save_file

from mpq.checkpoint.coding import in_coding
from mpq.checkpoint.empty_model import check_fits
from mpq.checkpoint.format import CONFIG_FILE, WEIGHTS_FILE, Coding, check_coding, sign, write_config
from mpq.checkpoint.packed import read_folder
from mpq.checkpoint.size import file_bytes
from mpq.checkpoint.tensors import digest
from mpq.compress.output import check_output
from mpq.errors import UserError
from mpq.files import check_writable, replacing

_MADE = (WEIGHTS_FILE, CONFIG_FILE)


def convert(folder: Path, output: Path, coding: Coding, overwrite: bool = False) -> tuple[int, int]:
    """Write the packed model in `folder` to `output` with this `coding`, and all other files as they are.

    Returns the bytes of the model's files before and after. There and back gives the same bytes if mpq wrote the
    folder; coding them again, if the same release of Zstandard does.

    Raises:
        UserError: `folder` is damaged or not a packed model, `output` is in `folder` or holds something, or `coding`
            is unknown.
    """
    check_coding(coding)
    if output.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"output={output} must not be the folder of the model, or in it")
    check_output(output, overwrite)
    config, sites, tied, stored = read_folder(folder)
    check_fits(config, sites, tied, stored)  # before anything is decoded
    block = config["quantization_config"]
    block["format_version"], tensors = in_coding(coding, sites, stored)
    block["sha256"] = digest(block, tensors)
    check_writable(output, sum(tensor.nbytes for tensor in tensors.values()))
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as temporary:
        shutil.copytree(folder, temporary, ignore=lambda place, _: _MADE if Path(place) == folder else ())
        save_file(tensors, temporary / WEIGHTS_FILE, metadata={"format": "pt"})
        write_config(temporary / CONFIG_FILE, sign(config))
        (temporary / WEIGHTS_FILE).chmod((temporary / CONFIG_FILE).stat().st_mode)
    return file_bytes(folder), file_bytes(output)
