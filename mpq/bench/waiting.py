"""How much of training waits for data: audio decoded, padded and brought to the device against the updates."""

import time

from mpq.bench.train_systems import SYSTEMS
from mpq.bench.workload import Workload
from mpq.data.batching import BatchPlan
from mpq.data.corpus import open_corpus
from mpq.data.dataset import SpeechDataset, loader
from mpq.data.librispeech import Utterance, read_split

_UTTERANCES = {"train": 64, "dev-clean": 0, "dev-other": 0, "test-clean": 2, "test-other": 2}


def waiting_share(work: Workload, batches: int, workers: int, utterances: list[Utterance]) -> float:
    """Return the share of the time of `batches` one-stage updates on `utterances` that is spent waiting for data.

    Batches hold as much audio as the batch of `work`, and are decoded by `workers` processes.
    """
    dataset = SpeechDataset(utterances, work.processor, "stop")
    plan = BatchPlan([utterance.seconds for utterance in utterances], work.batch.seconds, seed=0)
    data = iter(loader(dataset, plan.batches(0, batches + 1), workers, pin=work.device.type == "cuda"))
    update = SYSTEMS["one_stage_update"](work)
    update(next(data).to(work.device))  # workers have started, buffers are there
    waited, begin = 0.0, time.perf_counter()
    for _ in range(batches):
        start = time.perf_counter()
        batch = next(data).to(work.device)
        waited += time.perf_counter() - start
        update(batch)
    return waited / (time.perf_counter() - begin)


def utterances_of(root: str, split: str, cache: str) -> list[Utterance]:
    """Return `split` of the folder `root`, of LibriSpeech's layout; without one some synthetic speech, from `cache`."""
    if root:
        return read_split(root, split).utterances
    return open_corpus(None, {"seed": 0, "utterances": _UTTERANCES}, ["train"], ["test-clean"], "stop", cache).train
