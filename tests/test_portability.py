"""What Windows lacks: modules that Python has only on POSIX, and characters that no file name there may have."""

import ast
import subprocess

import pytest

from mpq.conf import REPOSITORY

POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
FILES = [path for folder in ("mpq", "scripts") for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def at_import(tree):
    """The modules that a file imports when it is imported itself, outside functions and `try`."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, (ast.If, ast.ClassDef, ast.With)):
            waiting += node.body


def test_no_module_needs_what_windows_lacks():
    bad = {path.name: found for path in FILES if (found := POSIX_ONLY & {*at_import(ast.parse(path.read_text()))})}
    assert not bad
    assert "fcntl" in {*at_import(ast.parse("import os, fcntl"))}  # the search finds what it looks for


def test_every_tracked_file_can_have_its_name_on_windows():
    done = subprocess.run(["git", "-C", str(REPOSITORY), "ls-files", "-z"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    assert not [name for name in done.stdout.split("\0") if set(name) & set('<>:"\\|?*') or name.endswith((".", " "))]
