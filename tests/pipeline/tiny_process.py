"""The command in processes of its own, forked from one that has everything imported: each costs only its work."""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tiny_run import SCRIPT, environment

_context = multiprocessing.get_context("forkserver")


def begin(command: list[str], log: Path, prepare: Callable[[], Any] | None = None, **variables: str) -> BaseProcess:
    """Start the script with `command`, its output going to `log`; `prepare` is called in the process before."""
    process = _context.Process(target=_command, args=(command, log, prepare, {**environment(), **variables}))
    process.start()
    return process


def end(process: BaseProcess) -> int | None:
    """Wait for the process; return its exit status, minus the signal where one ended it."""
    process.join()
    return process.exitcode


def _command(command: list[str], log: Path, prepare: Callable[[], Any] | None, variables: dict[str, str]) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method("fork", force=True)  # Linux's usual one, for the processes that decode audio
    import torch

    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    sys.argv = [str(SCRIPT), *command]
    runpy.run_path(str(SCRIPT), run_name="__main__")
