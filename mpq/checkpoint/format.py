"""The packed format, versions 1 and 2: tensor names, the `quantization_config` block in config.json, and their checks.

A packed folder is a transformers folder (`model.safetensors`, `config.json`, the processor's files) in which each
quantized weight `x.weight` is stored as two tensors, `x.weight_packed` (uint8, [bytes], see `packing`) and
`x.weight_scale` (float32, [1, ..., 1] or [out, 1, ..., 1]); everything else has its usual name and dtype. Version 2
differs in one thing: instead of `x.weight_packed`, a weight may have `x.weight_coded` (uint8, [bytes], see `coding`),
which decodes to the same bytes. A file without such a tensor is written as version 1.
`config.json` carries the block:

    "quantization_config": {
      "quant_method": "mpq", "format_version": 1 or 2,
      "sites": {"<x.weight>": {"bits": 4, "offset": 0.0, "shape": [out, in]}},   value = scale * (code + offset)
      "tied": {"<other name of a shared parameter>": "<the name that it is stored under>"},
      "activations": {"bits": 8, "kind": "static", "layers": ["<x>"]},      see `activations`; may be missing
      "language": of a CTC model with an adapter for each language: whose adapter this is; may be missing
      "sha256": of the sites, the ties, the activations, and every tensor's name, dtype, shape and bytes,
      "config_sha256": of everything in config.json but this entry
    }

There are two digests because transformers rewrites config.json when it saves a model again; the tensors' digest
survives that. The config's digest detects what no shape check can: a wrong digit in the number of attention heads loads
without an error and gives wrong results.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mpq.checkpoint.packing import packed_bytes
from mpq.errors import UserError
from mpq.quant.grid import Grid, grid

if TYPE_CHECKING:  # transformers reads this file while it is itself half imported (see `hf`)
    from transformers import PreTrainedModel

QUANT_METHOD = "mpq"
PACKED_VERSION, CODED_VERSION = VERSIONS = (1, 2)
Coding = Literal["zstd", "none"]
"""How codes are stored: coded without loss where that makes them smaller (see `coding`), or only packed."""
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
_MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class PackedSite:
    """One stored quantized weight: its bits, its grid's offset, and its shape ([out, in, ...])."""

    bits: int
    offset: float
    shape: tuple[int, ...]

    @property
    def grid(self) -> Grid:
        """The grid of the codes."""
        return grid(self.bits, centred=self.offset != 0)

    @property
    def packed_bytes(self) -> int:
        """The number of bytes of the packed codes."""
        return packed_bytes(math.prod(self.shape), self.bits)

    @property
    def scale_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The two shapes that a scale may have: per tensor and per output channel."""
        ones = (1,) * (len(self.shape) - 1)
        return (1, *ones), (self.shape[0], *ones)


def check_coding(coding: object) -> None:
    """Refuse what is not a `Coding`."""
    if coding not in (choices := get_args(Coding)):
        raise UserError(f"coding={coding} must be one of {', '.join(choices)}")


def packed_name(site: str) -> str:
    """Return the name of the tensor that holds the site's codes."""
    return f"{site}_packed"


def coded_name(site: str) -> str:
    """Return the name of the tensor that holds the site's codes coded; only in version 2."""
    return f"{site}_coded"


def scale_name(site: str) -> str:
    """Return the name of the tensor that holds the site's scale."""
    return f"{site}_scale"


def make_block(
    sites: Mapping[str, PackedSite], tied: Mapping[str, str], version: int = PACKED_VERSION
) -> dict[str, Any]:
    """Return the `quantization_config` block without its digests."""
    return {
        "quant_method": QUANT_METHOD,
        "format_version": version,
        "sites": {
            name: {"bits": site.bits, "offset": site.offset, "shape": list(site.shape)} for name, site in sites.items()
        },
        "tied": dict(tied),
    }


def parse_block(config: Mapping[str, Any]) -> tuple[dict[str, PackedSite], dict[str, str]]:
    """Return the sites and ties that `config` (the parsed config.json) declares.

    Raises:
        UserError: a different or no quant_method, a different format version, or a malformed field.
    """
    block = config.get("quantization_config")
    method = block.get("quant_method") if isinstance(block, dict) else None
    if not isinstance(block, dict) or method != QUANT_METHOD:
        hint = "; scripts/quantize.py packs a float model" if method is None else ""
        raise UserError(
            f"not a packed model: quant_method in {CONFIG_FILE} must be {QUANT_METHOD!r}, but is {method!r}{hint}"
        )
    version = block.get("format_version")
    if version not in VERSIONS or type(version) is not int:
        hint = "; a newer mpq reads it" if type(version) is int and version > max(VERSIONS) else ""
        raise UserError(f"the packed format's version must be 1 or 2, but is {version!r}{hint}")
    sites, tied = block.get("sites"), block.get("tied")
    if not isinstance(sites, dict) or not isinstance(tied, dict):
        raise UserError(f"quantization_config in {CONFIG_FILE} must hold the objects 'sites' and 'tied'")
    if not all(isinstance(source, str) for source in tied.values()):
        raise UserError(f"'tied' in {CONFIG_FILE} must map a parameter's name to another's")
    return {name: _parse_site(name, fields) for name, fields in sites.items()}, tied


def language_entry(model: "PreTrainedModel") -> dict[str, str]:
    """Return `{"language": ...}` for the block, or `{}` if `model` was loaded for none (`mpq.models.languages`)."""
    language = getattr(model, "target_lang", None)
    return {} if language is None else {"language": language}


def packed_language(config: Mapping[str, Any]) -> str | None:
    """Return the language that `config` (the parsed config.json) declares; None if none.

    Raises:
        UserError: it is not a text.
    """
    language = config["quantization_config"].get("language")
    if language is not None and not isinstance(language, str):
        raise UserError(f"'language' in {CONFIG_FILE} must be a text, but is {language!r:.80}")
    return language


def _parse_site(name: str, fields: Any) -> PackedSite:
    if not isinstance(fields, dict) or set(fields) != {"bits", "offset", "shape"}:
        raise UserError(f"site {name} in {CONFIG_FILE} must have exactly the fields bits, offset and shape")
    bits, offset, shape = fields["bits"], fields["offset"], fields["shape"]
    if type(bits) is not int or not 1 <= bits <= 8:
        raise UserError(f"site {name} must have 1 to 8 bits, but has {bits!r}")
    if not isinstance(shape, list) or not 1 <= len(shape) <= _MAX_DIMENSIONS:
        raise UserError(f"site {name} must have a shape of 1 to {_MAX_DIMENSIONS} dimensions, but has {shape!r:.80}")
    if not all(type(size) is int and size > 0 for size in shape):
        raise UserError(f"site {name} must have a shape of positive whole numbers, but has {shape!r:.80}")
    offsets = sorted({float(grid(bits, centred=centred).offset) for centred in (False, True)})
    if type(offset) is not float or offset not in offsets:
        raise UserError(f"site {name} at {bits} bits must have an offset of {offsets}, but has {offset!r}")
    return PackedSite(bits, offset, tuple(shape))


_LARGEST_FILE = 16 << 20  # bytes; a real one has some tens of kilobytes


def complete_config(model: "PreTrainedModel", block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of config.json for `model`: every value of its config, `block`, and the digest."""
    # All values, not only those that differ from defaults: a default that changes later must not change the model.
    config = json.loads(model.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)  # a path on the machine where it was loaded
    config |= {"architectures": [type(model).__name__], "dtype": "float32", "quantization_config": dict(block)}
    for part in config.values():
        if isinstance(part, dict) and "dtype" in part:  # an encoder's own configuration, whose dtype depends on history
            part["dtype"] = "float32"
    return sign(config)


def sign(config: dict[str, Any]) -> dict[str, Any]:
    """Return `config` (of config.json) with its digest put into it."""
    config["quantization_config"]["config_sha256"] = _digest(config)
    return config


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write what `complete_config` returned; the same config gives the same bytes."""
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_config(path: Path) -> dict[str, Any]:
    """Read config.json and check its digest if it has one: transformers drops it when it saves a model again.

    Raises:
        UserError: the file cannot be read, is not a JSON object, or was changed after it was written.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path} must have at most {_LARGEST_FILE} bytes, but has {path.stat().st_size}")
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is damaged: it must hold a JSON object")
    block = config.get("quantization_config")
    known = isinstance(block, dict) and block.get("format_version") in VERSIONS  # else `parse_block` refuses it
    if isinstance(block, dict) and known and block.get("config_sha256", digest := _digest(config)) != digest:
        raise UserError(f"{path} was changed or damaged after it was written: its checksum does not match")
    return config


def read_declared(folder: Path) -> tuple[dict[str, Any], dict[str, PackedSite], dict[str, str]]:
    """Return config.json's content, and the sites and ties that it declares; reads no tensor.

    Raises:
        UserError: a file is missing, or config.json is damaged or not that of a packed model.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name one that holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise UserError(f"{folder} is not a packed model: {file} is missing")
    config = read_config(folder / CONFIG_FILE)
    try:
        return config, *parse_block(config)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None


def canonical(value: Any) -> bytes:
    """Return JSON bytes that do not depend on the order of keys or on white space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(config: Mapping[str, Any]) -> str:
    block = {key: value for key, value in config["quantization_config"].items() if key != "config_sha256"}
    return hashlib.sha256(canonical({**config, "quantization_config": block})).hexdigest()
