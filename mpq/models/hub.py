"""Checks, before anything is written, whether a model is available here or on the Hub; and reads its stated licence."""

import json
import re
import shlex
from pathlib import Path

from mpq import conf
from mpq.commands import script, setting
from mpq.errors import UserError
from mpq.models.kinds import kind_of

_HUB_SECONDS = 5.0  # how long to wait for the Hub's answer before reporting that it can't be reached
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def check_available(path: str) -> None:
    """Raise UserError within seconds unless `path` is a speech model's folder, in the local Hub cache or on the Hub."""
    if folder := local_folder(path):
        _check_folder(path, folder)
    elif command := _training_command(path):
        raise UserError(f"model.path={path} does not exist yet: train it from random weights with `{command}`")
    elif _looks_like_path(path):
        raise UserError(f"there is no folder {path}: name one that save_pretrained wrote, or a model on the Hub")
    else:
        _check_hub(path)


def _looks_like_path(path: str) -> bool:
    """Whether `path` can't be a name on the Hub, `name` or `owner/name`, but only a folder, which is missing."""
    place = Path(path)
    if path.startswith((".", "~")) or place.is_absolute() or place.exists() or "\\" in path:
        return True
    return path.count("/") != len(place.parts) - 1 or len(place.parts) > 2


def local_folder(path: str) -> Path | None:
    """Return the local folder of the model: `path` itself, or its snapshot in the Hub cache; None if there is none."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(path, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    # A snapshot may be incomplete; then the Hub is asked for the missing files.
    return folder if (folder / "config.json").is_file() and _has_weights(folder) else None


def _training_command(path: str) -> str | None:
    """Return the command that trains `<root>/<model>_fp32/seed<seed>/model`; None if it isn't such a `conf/model/`."""
    found = re.fullmatch(r"(?:\./)?(.+)/(\w+)_fp32/seed(\d+)/model/?", path)
    if not found:
        return None
    root, name, seed = found.groups()
    model = conf.model(name)
    if "architecture" not in model or model["scale"] == "paper":
        return None
    trainer = f"{model['scale']}_scratch"
    chosen = [f"trainer={trainer}"] if trainer in conf.names("trainer") else []
    words = [f"model={name}", "recipe=from_scratch", *chosen, *([f"seed={seed}"] if seed != "0" else [])]
    return script("run", *words, setting("root", root))


def _has_weights(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in _WEIGHTS)


def _check_folder(path: str, folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{path} has no config.json: it must be a folder written by save_pretrained")
    if not _has_weights(folder):
        raise UserError(f"{path} has no weights: none of {', '.join(_WEIGHTS)}")
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        names = content.get("architectures") or []
    except (ValueError, AttributeError, OSError) as error:
        raise UserError(f"{config} is damaged: {error}") from None
    if names and kind_of(content) is None:
        raise UserError(
            f"{path} is not fine-tuned for speech recognition (CTC, or sequence to sequence): its config.json names "
            f"the architecture {', '.join(names)}"
        )


def _check_hub(path: str) -> None:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    get = "name the folder of a model saved by transformers (model.path=FOLDER for scripts/run.py)"
    if not Path(path).parent.is_dir() or "/" not in path:  # else it is probably meant as a folder in that one
        get = f"run `hf download {shlex.quote(path)}` where there is a network, or {get}"
    try:
        validate_repo_id(path)
        if constants.HF_HUB_OFFLINE:
            raise UserError(f"the model {path} is neither a folder nor in the local Hub cache (HF_HUB_OFFLINE): {get}")
        HfApi().model_info(path, timeout=_HUB_SECONDS)
    except UserError:
        raise
    except HFValidationError:
        raise UserError(f"{path} is neither a folder here nor a name on the Hub: {get}") from None
    except RepositoryNotFoundError:
        raise UserError(f"the Hub has no model {path}, or it is private and needs `hf auth login`") from None
    except Exception as error:  # whatever network error it is, the user needs the same advice
        raise UserError(
            f"the model {path} is neither a folder nor in the local Hub cache, and the Hub gave no answer "
            f"({type(error).__name__}): {get}"
        ) from None


_KEYS = ("license", "license_name", "license_link")  # in the front matter that the Hub reads


def stated_licence(path: str) -> dict[str, object]:
    """Return what the card (README.md) of the model at `path`, a folder or a Hub name, states about its licence.

    Empty if there is no card on this machine or it states none; the Hub is not contacted.
    """
    folder = local_folder(path)
    if folder is None or not (folder / "README.md").is_file():
        return {}
    from huggingface_hub import metadata_load

    try:
        front = metadata_load(folder / "README.md") or {}
    except Exception:  # front matter that can't be read states no licence
        return {}
    stated = {key: front[key] for key in _KEYS if front.get(key)}
    return {} if stated.get("license", "other") == "other" and len(stated) < 2 else stated
