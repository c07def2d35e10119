"""The options of each bench, in a module of their own so that --help need not import torch."""

from dataclasses import dataclass
from typing import Any

from mpq.cli import option, required

_MODEL = "a file of conf/model, without .yaml"
_THREADS = "number on a CPU; 0: as many as there are cores"
_LABEL = "suffix of the record's name, to distinguish several records of a model"
_CACHE = "the folder of the embedded corpus"
_OUTPUT = "the folder for the record"
_RECORDS = "experiments/local/bench"


@dataclass(frozen=True)
class Inference:
    """Running a model: PyTorch, ONNX Runtime, OpenVINO, mpq."""

    model: str = option("tiny_wav2vec2", _MODEL)
    seconds: tuple[float, ...] = option((5.0, 20.0), "length of the audio, batch 1")
    rounds: int = option(15, "number of interleaved runs")
    threads: int = option(0, "number per system; 0: as many as there are cores")
    repeats: int = option(3, "fresh processes per system for memory and load time; 0: none")
    systems: tuple[str, ...] = option(("all",), "which, or all")
    files: str = option("", "a folder that keeps the files made from this model for a later bench; default: none")
    label: str = option("", _LABEL)
    output: str = option(_RECORDS, _OUTPUT)


@dataclass(frozen=True)
class Whisper:
    """Running a Whisper: PyTorch, ONNX Runtime, CTranslate2, OpenVINO, whisper.cpp, mpq; speed, memory, WER."""

    folder: str = required("a Whisper's folder that transformers saved, with float weights")
    root: str = required("recordings in LibriSpeech's layout")
    split: str = option("librispeech/test-clean", "the split of root")
    utterances: int = option(24, "number of recordings, of all lengths up to 30 s; one interleaved run of each")
    silence: float = option(10.0, "seconds of it that the encoder gets after a recording; 30: all systems get 30 s")
    threads: int = option(1, "number per system; 0: as many as there are cores")
    repeats: int = option(1, "fresh processes per system for memory and load time; 0: none")
    systems: tuple[str, ...] = option(("all",), "which, or all")
    trained: str = option("", "a folder that mpq packed after training this model, measured as ours_*_trained")
    sized: str = option("", "a folder that mpq packed for a size of the file, measured compressed as ours_*_sized")
    files: str = option("", "a folder that keeps the files made from this model for a later bench; default: none")
    label: str = option("", _LABEL)
    output: str = option(_RECORDS, _OUTPUT)


@dataclass(frozen=True)
class Peers:
    """Packing a model: torchao, optimum-quanto, NNCF, mpq; file sizes and logit errors."""

    model: str = option("tiny_wav2vec2", _MODEL)
    bits: tuple[int, ...] = option((8, 4, 2), "of the linear layers")
    clips: int = option(8, "utterances of synthetic speech on which logits are compared; 0: one second of noise")
    cache: str = option(".cache", _CACHE)
    output: str = option(_RECORDS, _OUTPUT)


@dataclass(frozen=True)
class Train:
    """A training step: full precision, quantization-aware, the supernet, and the same in other libraries."""

    model: str = option("tiny_wav2vec2", _MODEL)
    batch: int = option(4, "utterances per step")
    seconds: float = option(3.0, "length of each utterance")
    rounds: int = option(15, "number of interleaved steps")
    device: str = option("auto", "auto, cpu or cuda")
    bf16: str = option("auto", "auto (on a GPU), on or off")
    compile: str = option("auto", "torch.compile for our quantizers: auto (on a GPU), on or off")
    threads: int = option(0, _THREADS)
    systems: tuple[str, ...] = option(("all",), "which, or all")
    repeats: int = option(1, "measurements of each system's memory; 0: none")
    batches: int = option(20, "batches for measuring the share of time spent waiting for data; 0: not measured")
    workers: tuple[int, ...] = option((0, 1), "processes that decode audio for it; one measurement for each number")
    root: str = option("", "the speech for it, in LibriSpeech's layout; default: the synthetic speech in cache")
    split: str = option("train", "the split of root")
    cache: str = option(".cache", _CACHE)
    label: str = option("", _LABEL)
    output: str = option(_RECORDS, _OUTPUT)


@dataclass(frozen=True)
class Kernels:
    """The quantizers alone, plain and compiled, against copying the weight: how close to memory bandwidth."""

    rows: int = option(4096, "of the weight, each with its own scale")
    columns: int = option(1024, "of the weight")
    device: str = option("auto", "auto, cpu or cuda")
    threads: int = option(0, _THREADS)
    rounds: int = option(31, "number of interleaved measurements")
    kernels: tuple[str, ...] = option(("plain", "compiled"), "plain, compiled (by torch.compile) or both")
    output: str = option(_RECORDS, _OUTPUT)


@dataclass(frozen=True)
class Growth:
    """Cost against the number of sites, parameters and utterances."""

    sites: tuple[int, ...] = option((72, 144, 1_000, 4_000), "for the search step and the allocation")
    parameters: tuple[int, ...] = option(
        (2**20, 2**22, 2**24), "for the fake quantization, the mixture and the packing"
    )
    utterances: tuple[int, ...] = option((1_000, 10_000, 100_000), "for MAPSSWE and the interval")
    repeats: int = option(3, "number of times each is measured")
    output: str = option(_RECORDS, _OUTPUT)


BENCHES: dict[str, type[Any]] = {
    "inference": Inference,
    "whisper": Whisper,
    "peers": Peers,
    "train": Train,
    "kernels": Kernels,
    "growth": Growth,
}
