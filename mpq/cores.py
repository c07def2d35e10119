"""How many processor cores there are for this process."""

import os


def usable_cores() -> int:
    """Return the number of cores that this process may use (Python 3.13 has it as `os.process_cpu_count`)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
