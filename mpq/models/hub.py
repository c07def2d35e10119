"""Checks, before anything is written, whether a model is available here or on the Hub; and reads its stated licence."""

import json
import re
import shlex
from pathlib import Path

from mpq import conf
from mpq.commands import script, setting
from mpq.errors import UserError, first_line
from mpq.models.kinds import CTC, kind_of

_HUB_SECONDS = 5.0  # how long to wait for the Hub's answer before reporting that it can't be reached
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def check_available(path: str) -> None:
    """Raise UserError within seconds unless `path` is a speech model's folder, in the local Hub cache or on the Hub."""
    if folder := local_folder(path):
        _check_folder(path, folder)
    elif command := _training_command(path):
        raise UserError(f"model.path={path} does not exist yet: train it with `{command}`")
    elif Path(path).is_file():
        raise UserError(f"{path} is a file: name the folder of a model that save_pretrained wrote")
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


def known(model: str) -> str:
    """Return the path or Hub name of a model that may be given by its name in conf/model, as shipped ones can be."""
    settings = conf.model(model)
    return conf.located(settings["path"]) if settings and not Path(model).is_dir() else model


def local_folder(path: str) -> Path | None:
    """Return the local folder of the model: `path` itself, or its snapshot in the Hub cache; None if there is none.

    A snapshot that lacks a file of the model or its processor counts as none: then the Hub is asked for the file.
    """
    if Path(path).is_dir():
        return Path(path)
    folder = _snapshot(path)
    return folder if folder and not _lacking(folder) else None


def source_of(path: str) -> tuple[str, dict[str, str]]:
    """Return what `from_pretrained` takes for the model at `path`: a folder or a Hub name, and the revision if named.

    A revision of a Hub name (a branch, a tag or a commit) is written NAME@REVISION.
    """
    folder = local_folder(path)
    return (str(folder), {}) if folder else on_the_hub(path)


def on_the_hub(path: str) -> tuple[str, dict[str, str]]:
    """Like `source_of`, for a Hub name, even where the local cache has a part of it."""
    name, _, revision = path.partition("@")
    return name, {"revision": revision} if revision else {}


def kind_at(path: str) -> str:
    """Return the kind of the model at `path`, a folder or a Hub name; CTC where its config.json names neither kind.

    Raises: UserError if there is no config.json that can be read.
    """
    try:
        if folder := local_folder(path):
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        else:
            from transformers import PreTrainedConfig  # here: it takes seconds, which a model that is here needs not

            source, revision = source_of(path)
            config, _ = PreTrainedConfig.get_config_dict(source, **revision)
        return kind_of(config) or CTC
    except Exception as error:  # whatever it is, the user needs the same advice
        raise UserError(f"{path} is not a speech model that transformers can load: {first_line(error)}") from None


def _snapshot(path: str) -> Path | None:
    """Return the folder of a Hub name in the cache, whole or in part; None if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    name, _, revision = path.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


_EXTRACTOR = ("preprocessor_config.json", "processor_config.json")
_VOCABULARY = ("vocab*", "tokenizer.json", "*.model")  # as the tokenizers of transformers name theirs


def _lacking(folder: Path) -> str | None:
    """Return the name of a file that the model or processor in `folder` needs and that isn't there; None if whole."""
    if not (folder / "config.json").is_file():
        return "config.json"
    indexes = [*folder.glob("*.index.json")]
    for index in indexes:
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, OSError):
            return index.name
        if missing := [shard for shard in shards if not (folder / shard).is_file()]:
            return missing[0]
    if not indexes and not any((folder / name).is_file() for name in ("model.safetensors", "pytorch_model.bin")):
        return "model.safetensors"
    for patterns in (_EXTRACTOR, _VOCABULARY):
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            return patterns[0].replace("*", ".json")
    return None


def _training_command(path: str) -> str | None:
    """Return the command that trains `<root>/<model>_fp32/seed<seed>/model`; None if it isn't such a `conf/model/`."""
    found = re.fullmatch(r"(?:\./)?(.+)/(\w+)_fp32/seed(\d+)/model/?", path)
    if not found:
        return None
    root, name, seed = found.groups()
    model = conf.model(name)
    if model.get("path") == path.rstrip("/"):  # a named row makes it
        return script("run", f"+exp={name}_fp32")
    if "architecture" not in model or model["scale"] in ("real", "paper"):  # those come from the Hub
        return None
    words = [f"model={name}", "recipe=from_scratch", *([f"seed={seed}"] if seed != "0" else [])]
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
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import validate_repo_id

    name, _, revision = path.partition("@")
    at = f" --revision {shlex.quote(revision)}" if revision else ""
    get = a_folder = "name the folder of a model saved by transformers (model.path=FOLDER for scripts/run.py)"
    if not Path(path).parent.is_dir() or "/" not in path:  # else it is probably meant as a folder in that one
        get = f"run `hf download {shlex.quote(name)}{at}` where there is a network, or {get}"
    half = _snapshot(path)
    lacks = (
        f"in the local Hub cache without {_lacking(half)}" if half else "neither a folder nor in the local Hub cache"
    )
    try:
        validate_repo_id(name)
        if constants.HF_HUB_OFFLINE:
            raise UserError(f"the model {path} is {lacks} (HF_HUB_OFFLINE): {get}")
        HfApi().model_info(name, revision=revision or None, timeout=_HUB_SECONDS)
    except UserError:
        raise
    except HFValidationError:
        raise UserError(f"{path} is neither a folder here nor a name on the Hub: {a_folder}") from None
    except RevisionNotFoundError:
        raise UserError(
            f"the Hub's model {name} has no revision {revision}: name a branch, a tag or a commit"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(f"the Hub has no model {path}, or it is private and needs `hf auth login`") from None
    except Exception as error:  # whatever network error it is, the user needs the same advice
        raise UserError(
            f"the model {path} is {lacks}, and the Hub gave no answer ({type(error).__name__}): {get}"
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
