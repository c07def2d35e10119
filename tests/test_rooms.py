"""Rooms form no circles: no folder of mpq imports, by way of others, a folder that imports it."""

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mpq"


def modules_of(package):
    """Dotted name -> file, of every module of the package."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imported(name, path, modules):
    """(line, module) of every import of our own modules in a file: in functions and under TYPE_CHECKING, too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.rsplit(".", node.level - 1)[0]
                base = f"{above}.{base}" if base else above
            whole = [f"{base}.{alias.name}" for alias in node.names]
            targets = [target if target in modules else base for target in whole]
        for target in targets:
            if target in modules:
                yield node.lineno, target


def room(name, modules):
    """The folder of a module, its dotted name; a module of the root is a room of its own."""
    if modules[name].name == "__init__.py":
        return name
    folder = name.rpartition(".")[0]
    return folder if "." in folder else name


def imports_between_rooms(package):
    """(room, the room that it imports) -> the imports, as a reader would look them up.

    The root's `__init__` is left out: it offers names of all rooms and every module imports it by being in it.
    """
    modules, found = modules_of(package), defaultdict(list)
    for name, path in modules.items():
        for line, target in imported(name, path, modules) if name != package.name else ():
            ends = room(name, modules), room(target, modules)
            if package.name in ends or ends[0] == ends[1]:
                continue
            text = f"{path.relative_to(package.parent).as_posix()}:{line} imports {target}"
            if text not in found[ends]:
                found[ends].append(text)
    return found


def circle(package):
    """The imports of a circle of rooms, a line each, the least used way first; empty where there is no circle."""
    between = imports_between_rooms(package)
    graph = defaultdict(set)
    for importer, other in between:
        graph[importer].add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        path = error.args[1][::-1]  # graphlib lists a circle from what is imported to what imports it
        ways = sorted((between[ends] for ends in pairwise(path)), key=len)
        return [line for lines in ways for line in lines]
    return []


def test_the_rooms_form_no_circle():
    lines = circle(PACKAGE)
    assert not lines, "rooms import each other in a circle:\n  " + "\n  ".join(lines)


def test_the_imports_are_found():
    """Were none found, there would be no circle either."""
    between = imports_between_rooms(PACKAGE)
    assert ("mpq.pipeline", "mpq.train") in between and ("mpq.train", "mpq.quant") in between
    assert len(between) > 50


CLOSING = {
    "at the top": "from pack.a.one import X",
    "a module": "from pack.a import one",
    "plain": "import pack.a.one",
    "relative": "from ..a import one",
    "in a function": "def late():\n    from pack.a.one import X\n    return X",
    "for types alone": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.a.one import X",
}


@pytest.mark.parametrize("way", CLOSING)
def test_a_circle_is_found_however_it_is_closed_and_its_imports_are_named(tmp_path, way):
    """Three rooms, one of them a module of the root; without the last import there is no circle."""
    package = tmp_path / "pack"
    files = {
        "__init__.py": "from pack.a.one import X",
        "root.py": "from pack.b import two",
        "a/__init__.py": "",
        "a/one.py": "from pack import root\nfrom pack.a.other import Y",
        "a/other.py": "from pack.a import one",  # two files of one room may import each other
        "b/__init__.py": "",
        "b/two.py": "import ast",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert circle(package) == []
    (package / "b" / "two.py").write_text(CLOSING[way])
    found = circle(package)
    assert len(found) == 3
    assert {line.split(":")[0] for line in found} == {"pack/a/one.py", "pack/root.py", "pack/b/two.py"}
    assert {line.rpartition(" ")[2] for line in found} >= {"pack.root", "pack.b.two", "pack.a.one"}
