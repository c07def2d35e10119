import multiprocessing
import signal
import subprocess
import sys
import time

import pytest

from mpq.data.worker import outlive_signals


def decode(ready):
    outlive_signals(0)
    ready.send("ready")
    time.sleep(600)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system can't tell who sent a signal")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_heeds_its_own_process_alone(method):
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=decode, args=(sender,), daemon=True)
    worker.start()
    assert receiver.poll(60) and receiver.recv() == "ready"
    for name in ("SIGTERM", "SIGUSR1", "SIGTERM"):  # from a third process
        subprocess.run(
            [sys.executable, "-c", f"import os, signal; os.kill({worker.pid}, signal.{name})"], check=True, timeout=60
        )
    worker.join(0.2)
    assert worker.is_alive()
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0
