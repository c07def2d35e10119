"""What a process that decodes audio does at a signal: it continues until the run that it works for ends it.

A module of its own, without torch or numpy: a thread that such a library starts before `outlive_signals` does not block
the signals, and the system may hand one to it. Forked workers, the default of Linux up to Python 3.13, have none.
"""

import multiprocessing
import os
import signal
import threading


def outlive_signals(_: int) -> None:
    """Heed SIGTERM from the process that we decode for alone; SLURM, for one, sends it to every process of a job.

    Without us that process would miss its batches where it is to finish an update and write a checkpoint.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS, Windows
        return
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None, "this is a DataLoader's worker"
    signals = {signal.SIGTERM, signal.SIGUSR1}  # those at which a run writes a checkpoint and stops
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # here and in threads to come; the next one waits for them
    threading.Thread(target=_until_told, args=(signals, parent.pid), daemon=True).start()


def _until_told(signals: set[signal.Signals], by: int) -> None:
    while signal.sigwaitinfo(signals).si_pid != by:
        pass
    os._exit(0)
