"""What can happen to a process, made to happen in it: `tiny_process.begin(..., prepare=...)` calls one of these."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def _before_update(update, act):
    """Call `act` once, before update number `update` (from 0)."""
    from mpq.train.module import TrainingModule

    start = TrainingModule.on_train_batch_start

    def watched(self, batch, batch_idx):
        if self.global_step == update:
            act()
        return start(self, batch, batch_idx)

    TrainingModule.on_train_batch_start = watched


def signal_before(update, number):
    """The process gets a signal."""
    _before_update(update, lambda: os.kill(os.getpid(), number))


def signal_to_all_before(update, number):
    """The process and all that it started get a signal from another one, as SLURM sends it."""
    os.setsid()
    send = f"import os; os.killpg({os.getpid()}, {int(number)})"
    _before_update(update, lambda: subprocess.run([sys.executable, "-c", send], start_new_session=True, check=True))


def full_disk_before(update):
    """No file can grow beyond 20 kB, which is less than a checkpoint and more than the log."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    _before_update(update, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard)))


def worker_dies_after(checkpoint):
    """The process that decodes audio is killed as soon as there is a checkpoint."""
    from mpq.data.dataset import SpeechDataset

    decode, parent = SpeechDataset.__getitem__, os.getpid()

    def watched(self, index):
        if os.getpid() != parent and Path(checkpoint).is_file():
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(self, index)

    SpeechDataset.__getitem__ = watched


def count_changes(root, tally):
    """A byte is added to the file `tally` for each file or folder below `root` that is opened to write, moved, ..."""
    file = os.open(tally, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _at_changes(root, lambda number: os.write(file, b"."))


def kill_before_change(root, number):
    """The process is killed before it makes its change of that number (from 1) below `root`."""
    _at_changes(root, lambda made: made == number and os.kill(os.getpid(), signal.SIGKILL))


def _at_changes(root, act):
    made = 0

    def hook(event, arguments):
        nonlocal made
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in _CHANGES) and str(root) in str(arguments[0]):
            made += 1
            act(made)

    sys.addaudithook(hook)


def without_privileges():
    """Root minds the permissions of files like everybody else."""
    import ctypes

    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the kernel's interface, this process
    none = (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0
