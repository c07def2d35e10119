"""The licence of a model, as its own card states it: what is made from the model falls under it, too."""

from mpq.models.availability import local_folder

_KEYS = ("license", "license_name", "license_link")  # of the front matter that the Hub reads


def stated_licence(path: str) -> dict[str, object]:
    """What the card (README.md) of the model at `path`, a folder or a Hub name, says of its licence.

    Empty where there is no card on this machine or it states none; the Hub isn't asked.
    """
    folder = local_folder(path)
    if folder is None or not (folder / "README.md").is_file():
        return {}
    from huggingface_hub import metadata_load

    try:
        front = metadata_load(folder / "README.md") or {}
    except Exception:  # whatever a card may hold where front matter is expected, it states no licence
        return {}
    stated = {key: front[key] for key in _KEYS if front.get(key)}
    return {} if stated.get("license", "other") == "other" and len(stated) < 2 else stated
