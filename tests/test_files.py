"""Files appear whole or not at all, and a run is one process's: a killed one's claim is taken over."""

import errno
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import mpq.files as module
from mpq.errors import UserError
from mpq.files import TakenError, check_writable, claim, remove_partial, replacing, write_text

FORK = multiprocessing.get_context("fork")
RUN = "run/seed0"


def test_a_file_appears_whole_with_its_folder(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "é")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "é".encode()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failure_leaves_what_was_there(tmp_path, kind):
    path = tmp_path / "a"
    if kind == "file":
        path.write_text("old")
    else:
        path.mkdir()
        (path / "inner").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        assert not temporary.exists()
        if kind == "file":
            temporary.write_text("new")
        else:
            temporary.mkdir()
            (temporary / "inner").write_text("new")
        raise KeyboardInterrupt
    assert (path if kind == "file" else path / "inner").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_a_folder_with_all_that_was_in_it(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
    assert [inner.name for inner in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path, kind):
    there, link = tmp_path / "disk" / "a", tmp_path / "link"
    there.parent.mkdir()
    link.symlink_to(there)
    for text in ("first", "second"):  # at first it leads nowhere
        with replacing(link) as temporary:
            assert temporary.parent == there.parent
            if kind == "folder":
                temporary.mkdir()
            (temporary / "inner" if kind == "folder" else temporary).write_text(text)
        assert link.is_symlink() and (there / "inner" if kind == "folder" else there).read_text() == text
        assert list(there.parent.iterdir()) == [there]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    path, replace = tmp_path / "model", Path.replace
    path.mkdir()
    (path / "old").write_text("old")
    monkeypatch.setattr(os.path, "ismount", lambda one: Path(one) == path)
    with pytest.raises(UserError, match=f"model is a mount point, .* name a folder in it, {path}/NAME"):
        check_writable(path)

    def busy(self, target):
        if not self.name.endswith(".old.partial") and target == path:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    with pytest.raises(OSError, match="busy"), replacing(path) as temporary:
        temporary.mkdir()
    assert (path / "old").read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    for name in (".a.txt.123.partial", "a.partial", ".hidden"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".model.123.partial").mkdir()
    (tmp_path / ".model.123.partial" / "weights").write_text("x")
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.partial"]
    remove_partial(tmp_path / "missing")


@pytest.fixture(autouse=True)
def quick_heartbeat(monkeypatch):
    monkeypatch.setattr(module, "_HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.05)


def hold(root, held, release):
    with claim(root, RUN):
        held.set()
        release.wait()


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a claim, and the event that makes it end."""
    held, release = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path, held, release))
    process.start()
    assert held.wait(60)
    yield tmp_path / ".claims" / "run-seed0", process, release
    process.kill()
    process.join()


def test_a_held_claim_is_refused_with_the_name_of_its_holder(holder, tmp_path):
    path, process, release = holder
    told = rf"{tmp_path}/run/seed0 is being worked on by process {process.pid} on "
    with pytest.raises(TakenError, match=told), claim(tmp_path, RUN):
        raise AssertionError("two processes hold one claim")
    release.set()
    process.join()
    with claim(tmp_path, RUN), claim(tmp_path, "run/seed1"):
        assert path.is_file()
    assert not list(path.parent.iterdir()) and not (tmp_path / "run").exists()


def test_waiting_ends_with_the_other_process(holder, tmp_path):
    _, _, release = holder
    threading.Timer(0.2, release.set).start()
    with claim(tmp_path, RUN, wait=True):
        assert release.is_set()


def test_the_claim_of_a_killed_process_is_taken_over_at_once(holder, tmp_path):
    path, process, _ = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert path.is_file()
    with claim(tmp_path, RUN):
        pass
    assert not path.exists()


def test_the_claim_of_a_machine_that_died_is_taken_over_after_its_lease(holder, tmp_path, monkeypatch):
    """Another machine's process can't be looked at: only its heartbeat tells. A stopped process has none."""
    path, process, _ = holder
    monkeypatch.setattr(module, "_LEASE_SECONDS", 60.0)
    text = path.read_text()
    host = next(line for line in text.splitlines() if line.startswith("host="))
    os.kill(process.pid, signal.SIGSTOP)
    try:
        foreign = text.replace(host, "host=elsewhere").replace("duration=60.0", "duration=0.5")
        path.write_text(foreign)
        monkeypatch.setattr(module, "_LEASE_SECONDS", 0.5)
        with claim(tmp_path, RUN):
            assert "elsewhere" not in path.read_text()
    finally:
        os.kill(process.pid, signal.SIGKILL)


def test_a_child_that_was_forked_while_the_claim_was_held_does_not_end_it(tmp_path):
    with claim(tmp_path, RUN):
        child = FORK.Process(target=time.sleep, args=(0,))
        child.start()
        child.join()
        assert (tmp_path / ".claims" / "run-seed0").is_file()
