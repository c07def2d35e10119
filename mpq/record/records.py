"""Records in a tree of experiments: `<root>/<exp>/seed<k>/result.json`."""

from pathlib import Path

from mpq.errors import UserError
from mpq.record.atomic import write_text
from mpq.record.result import Result, from_json


def folder(root: Path | str, exp: str, seed: int) -> Path:
    """Return the folder of a run below `root`: `<root>/<exp>/seed<seed>`."""
    return Path(root) / exp / f"seed{seed}"


def write_record(result: Result, root: Path | str) -> Path:
    """Write `result` to `<root>/<exp>/seed<k>/result.json` in one step and return that path."""
    path = folder(root, result.exp, result.seed) / "result.json"
    write_text(path, result.to_json())
    return path


def load_records(root: Path | str) -> list[Result]:
    """Read every `<exp>/seed<k>/result.json` at any depth below `root`, in the order of their paths.

    Raises UserError for a missing root, an unreadable record, or one whose folder names another experiment or seed:
    a record that can't be shown is never left out in silence.
    """
    check_root(root)
    return [read_record(path) for path in sorted(Path(root).rglob("result.json"))]


def check_root(root: Path | str) -> None:
    """Raise UserError where there is no folder `root` of records."""
    if not Path(root).is_dir():
        raise UserError(f"there is no folder {root}; make a first record there with: python scripts/run.py root={root}")


def read_record(path: Path | str) -> Result:
    """Read one `result.json`; raises UserError as `from_json` does, and where its folder names another run."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    result = from_json(text, path)
    named = f"{result.exp}/seed{result.seed}"
    if "/".join(path.absolute().parts[-3:-1]) != named:
        raise UserError(f"{path} is the record of {named}: move it to a folder of that name, or remove it")
    return result
