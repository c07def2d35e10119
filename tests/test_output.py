"""Scripts end well wherever their output goes."""

import os
import shutil
import subprocess
import sys

import pytest

from mpq.conf import REPOSITORY

SAYS = (
    "import sys; from mpq.guard import guarded\n"
    "@guarded\n"
    "def main(): print(sys.argv[1])\n"
    "main(); print('the end', file=sys.stderr)\n"
)


def say(text, encoding, **more):
    words = [sys.executable, "-c", SAYS, text]
    return subprocess.run(words, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, **more)


@pytest.mark.parametrize(
    ("encoding", "seen"),
    [("utf-8", "WER ↓ 1±2 “ı”"), ("cp1252", "WER v 1±2 “\\u0131”"), ("ascii", 'WER v 1+/-2 "\\u0131"')],
)
def test_signs_that_the_encoding_lacks_become_others(encoding, seen):
    done = say("WER ↓ 1±2 “ı”", encoding)
    assert (done.returncode, done.stdout.decode(encoding).strip()) == (0, seen)


def test_a_table_is_printed_in_any_encoding(tmp_path):
    for row in ("fp32", "3p5bit"):
        shutil.copytree(REPOSITORY / "experiments" / f"tiny_wav2vec2_{row}", tmp_path / f"tiny_wav2vec2_{row}")
    words = [sys.executable, "scripts/tables.py", "table=time", f"root={tmp_path}"]
    env = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(words, cwd=REPOSITORY, env=env, capture_output=True)
    assert done.returncode == 0 and b"Traceback" not in done.stderr and done.stdout


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(closed):
    line = f'exec "$0" "$@" {closed}'
    done = subprocess.run(["sh", "-c", line, sys.executable, "-c", SAYS, "a text"], capture_output=True)
    assert done.returncode == 0 and b"Error" not in done.stdout + done.stderr
