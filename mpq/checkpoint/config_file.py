"""config.json of a packed folder: the transformers config, the `quantization_config` block and a digest over both.

The digest finds what no shape check can: a flipped digit in the number of attention heads loads without complaint and
computes something else.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from mpq.checkpoint.format import FORMAT_VERSION
from mpq.errors import UserError

_LARGEST_FILE = 16 << 20  # bytes; a real one has some tens of kilobytes


def complete_config(model: PreTrainedModel, block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of config.json for `model`: every value of its config spelled out, `block`, and the digest."""
    # All values, not transformers' short form: a default that changes in a later version must not change the model.
    config = json.loads(model.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)  # a path of the machine that it was loaded on
    config |= {"architectures": [type(model).__name__], "dtype": "float32", "quantization_config": dict(block)}
    config["quantization_config"]["config_sha256"] = _digest(config)
    return config


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write what `complete_config` gave; the same config, the same bytes."""
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_config(path: Path) -> dict[str, Any]:
    """Read config.json and check its digest, where it holds one: transformers drops it when it saves a model again.

    Raises:
        UserError: the file cannot be read, is no JSON object, or was changed after it was written.
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
    known = isinstance(block, dict) and block.get("format_version") == FORMAT_VERSION  # else `parse_block` refuses it
    if isinstance(block, dict) and known and block.get("config_sha256", digest := _digest(config)) != digest:
        raise UserError(f"{path} was changed or damaged after it was written: its checksum does not hold")
    return config


def canonical(value: Any) -> bytes:
    """Return JSON bytes that are the same whatever the order of keys and the white space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(config: Mapping[str, Any]) -> str:
    block = {key: value for key, value in config["quantization_config"].items() if key != "config_sha256"}
    return hashlib.sha256(canonical({**config, "quantization_config": block})).hexdigest()
