"""How a process that decodes audio handles signals: it continues until the run that it works for ends it.

This is a separate module without torch or numpy, because a thread that such a library starts before `outlive_signals`
does not block the signals, and the system may deliver one to it. Forked workers, the default on Linux up to Python
3.13, have no such threads.
"""

import multiprocessing
import os
import signal
import threading


def outlive_signals(_: int) -> None:
    """Obey SIGTERM only if the process that we decode for sends it; SLURM signals all processes of a job.

    Without its workers that process would lack the batches to finish an update and write a checkpoint.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS, Windows
        return
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None, "this is a DataLoader's worker"
    signals = {signal.SIGTERM, signal.SIGUSR1}  # at these a run writes a checkpoint and stops
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # here and in future threads; the next one waits for them
    threading.Thread(target=_until_told, args=(signals, parent.pid), daemon=True).start()


def _until_told(signals: set[signal.Signals], by: int) -> None:
    while signal.sigwaitinfo(signals).si_pid != by:
        pass
    os._exit(0)
