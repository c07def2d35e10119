"""A training step: quantization-aware training and the supernet against full precision and other libraries.

All systems train the same model on the same batch of noise with CTC and AdamW; quantized systems quantize the encoder's
linear layers. One more row is the actual update of one-stage compression, with every weight quantized and a teacher.
Also measured: the share of training time that is spent waiting for data.
"""

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from mpq.bench.inference import why
from mpq.bench.measuring import compared, interleave
from mpq.bench.models import check
from mpq.bench.options import Train as Options
from mpq.bench.systems import usable_threads
from mpq.bench.train_steps import SYSTEMS, Workload, chosen_device
from mpq.data.batching import BatchPlan
from mpq.data.corpus import corpus_name, open_corpus
from mpq.data.dataset import SpeechDataset, loader
from mpq.data.librispeech import Utterance, read_split
from mpq.errors import UserError
from mpq.quant import compiled

REFERENCE = "full_precision"


def run(options: Options) -> list[dict[str, Any]]:
    """Return one row per system with step time and peak memory relative to full precision, and the waiting shares.

    Raises:
        UserError: the model, a system or the value of device, bf16 or compile is unknown.
    """
    options = settled(options)
    check(options.model)
    names = list(SYSTEMS) if options.systems == ("all",) else [REFERENCE, *options.systems]
    if unknown := [name for name in names if name not in SYSTEMS]:
        raise UserError(f"there is no system {unknown[0]!r}; choose among {', '.join(SYSTEMS)}")
    torch.set_num_threads(usable_threads(options.threads))
    steps, problems, peaks = {}, {}, {}
    for name in dict.fromkeys(names):
        try:
            measured = [peak_bytes(name, options) for _ in range(options.repeats)]
            peaks[name] = max((peak for peak in measured if peak), default=None)
            steps[name] = make_step(name, options)
        except UserError:
            raise
        except Exception as error:  # an error of a peer becomes its row
            problems[name] = why(error)
    figures = compared(interleave(steps, options.rounds), REFERENCE)
    rows: list[dict[str, Any]] = []
    for name in steps:
        row = {"system": name, **figures[name], "peak_bytes": peaks[name]}
        row["peak_ratio"] = peaks[name] / peaks[REFERENCE] if peaks[name] and peaks[REFERENCE] else None
        rows.append(row)
    if options.batches:
        utterances = utterances_of(options.root, options.split, options.cache)
        for workers in options.workers:
            share = waiting_share(make_workload(options), options.batches, workers, utterances)
            name = f"one_stage_update on {corpus_name(options.root)} speech, workers={workers}"
            rows.append({"system": name, "waiting_share": share})
    return rows + [{"system": name, "problem": problem} for name, problem in problems.items()]


def settled(options: Options) -> Options:
    """Return the options with `device`, `bf16` and `compile` decided.

    Raises:
        UserError: a value is unknown, or a GPU is requested but there is none.
    """
    device, switches = chosen_device(options.device), {}
    for name in ("bf16", "compile"):
        choice = getattr(options, name)
        if choice not in ("auto", "on", "off"):
            raise UserError(f"{name}={choice} must be auto, on or off")
        switches[name] = ("on" if device == "cuda" else "off") if choice == "auto" else choice
    return replace(options, device=device, **switches)


def make_workload(options: Options) -> Workload:
    """Return the model and the batch of the settled `options`."""
    return Workload(options.model, options.batch, options.seconds, options.device, options.bf16 == "on")


def make_step(name: str, options: Options) -> Callable[[], None]:
    """Return the function that does one update with a system; the choice to compile holds for the whole process."""
    compiled.choose(options.compile == "on")
    return SYSTEMS[name](make_workload(options))


def peak_bytes(name: str, options: Options) -> int | None:
    """Return the peak memory of two updates: of PyTorch's allocator on a GPU, else resident in a fresh process.

    Raises:
        RuntimeError: the process failed; the message is the last line of its output.
    """
    if options.device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        held = torch.cuda.memory_allocated()  # by the steps of other systems
        torch.cuda.reset_peak_memory_stats()
        step = make_step(name, options)
        step()
        step()
        return torch.cuda.max_memory_allocated() - held
    command = [sys.executable, "-m", "mpq.bench.train", name, json.dumps(asdict(options))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def _alone(name: str, settings: dict[str, Any]) -> int | None:
    from mpq.bench.measuring import resident_bytes

    torch.set_num_threads(usable_threads(settings["threads"]))
    step = make_step(name, Options(**settings))
    step()
    step()
    return resident_bytes("VmHWM")


if __name__ == "__main__":
    print(json.dumps(_alone(sys.argv[1], json.loads(sys.argv[2]))))


_UTTERANCES = {"train": 64, "dev-clean": 0, "dev-other": 0, "test-clean": 2, "test-other": 2}


def waiting_share(work: Workload, batches: int, workers: int, utterances: list[Utterance]) -> float:
    """Return the share of time spent waiting for data over `batches` one-stage updates on `utterances`.

    Batches hold as much audio as the batch of `work` and are decoded by `workers` processes.
    """
    dataset = SpeechDataset(utterances, work.speech.reader, "stop")
    plan = BatchPlan([utterance.seconds for utterance in utterances], work.batch.seconds, seed=0)
    data = iter(loader(dataset, plan.batches(0, batches + 1), workers, pin=work.device.type == "cuda"))
    update = SYSTEMS["one_stage_update"](work)
    update(next(data).to(work.device))  # starts the workers and allocates buffers
    waited, begin = 0.0, time.perf_counter()
    for _ in range(batches):
        start = time.perf_counter()
        batch = next(data).to(work.device)
        waited += time.perf_counter() - start
        update(batch)
    return waited / (time.perf_counter() - begin)


def utterances_of(root: str, split: str, cache: str) -> list[Utterance]:
    """Return `split` of the folder `root` in LibriSpeech's layout; without `root`, synthetic speech from `cache`."""
    if root:
        return read_split(root, split).utterances
    return open_corpus(None, {"seed": 0, "utterances": _UTTERANCES}, ["train"], ["test-clean"], "stop", cache).train
