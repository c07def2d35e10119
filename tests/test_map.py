"""The map in mpq/README.md is the tree: each room has a row that names its modules, and nothing else."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mpq"
HEADING = "## The map"


def rooms(package):
    """Room as the map writes it (`quant/`; `mpq/` for the root) -> the names of its modules."""
    found = {}
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        modules = sorted(path.stem for path in folder.glob("*.py"))
        if modules:
            room = "mpq" if folder == package else folder.relative_to(package).as_posix()
            found[f"{room}/"] = [name for name in modules if name != "__init__"]
    return found


def mapped(page):
    """Room -> (its purpose, the names in its row), as the page's map has them."""
    found = {}
    section = page.partition(f"{HEADING}\n")[2].partition("\n## ")[0]
    for room, purpose, modules in re.findall(r"^\| `([\w/]+/)` \| (.*?) \| (.*) \|$", section, re.MULTILINE):
        assert room not in found, f"two rows for {room}"
        found[room] = purpose, sorted(re.findall(r"`(\w+)`", modules))
    return found


TREE = rooms(PACKAGE)
MAP = mapped((PACKAGE / "README.md").read_text(encoding="utf-8"))


def test_every_room_has_a_row_and_every_row_a_room():
    assert MAP.keys() == TREE.keys()


@pytest.mark.parametrize("room", sorted(TREE))
def test_a_row_states_a_purpose_and_names_exactly_the_modules_of_its_room(room):
    purpose, names = MAP.get(room, ("", []))
    missing, gone = set(TREE[room]) - set(names), set(names) - set(TREE[room])
    assert not missing, f"mpq/README.md's row {room} lacks {sorted(missing)}"
    assert not gone, f"mpq/README.md's row {room} names {sorted(gone)}, which are not there"
    assert len(names) == len(set(names)), f"mpq/README.md's row {room} names a module twice"
    assert purpose.strip(), f"mpq/README.md's row {room} states no purpose"


def test_the_readers_find_what_is_wrong(tmp_path):
    """The two readers above, on a tree and a page made for it: a match of nothing with nothing would pass."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("top.py", "a/__init__.py", "a/one.py", "a/b/two.py"):
        (tmp_path / name).touch()
    assert rooms(tmp_path) == {"mpq/": ["top"], "a/": ["one"], "a/b/": ["two"]}
    table = "| `a/` | some | `one` (first), `two` |"
    page = f"| `z/` | before | `no` |\n{HEADING}\n\n{table}\n\n## More\n| `y/` | after | `no` |"
    assert mapped(page) == {"a/": ("some", ["one", "two"])}
