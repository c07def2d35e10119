"""Packing a model with other libraries: the bytes of their files, and the effect of their weights on the logits."""

# The peers are an optional extra.
# pyright: reportMissingImports=false
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpq.bench.inference import why
from mpq.bench.models import Files, file_bytes, load_model, noise
from mpq.bench.options import Peers as Options
from mpq.data.corpus import open_corpus
from mpq.errors import UserError

Pack = Callable[[Files, int, Path], Callable[[np.ndarray], np.ndarray]]


def run(options: Options) -> list[dict[str, Any]]:
    """Return one row per library and precision: file bytes, logit error, share of frames with a changed character.

    The model is packed, written, read back in this process and run. If a library can't do that, its row has the error.
    File sizes include the weights that a library leaves in float32; the functions below say which.

    Raises:
        UserError: the model is unknown, or a precision is not 2, 4 or 8.
    """
    if bad := [bits for bits in options.bits if bits not in (2, 4, 8)]:
        raise UserError(f"bits={bad[0]} must be 2, 4 or 8")
    model, processor = load_model(options.model)
    clips = _clips(processor, options)
    reference = [_logits(model)(clip) for clip in clips]
    rows: list[dict[str, Any]] = [{"system": "float32", "bits": 32, "file_bytes": sum(_bytes(model))}]
    for bits in options.bits:
        for name, pack in PEERS.items():
            row: dict[str, Any] = {"system": name, "bits": bits}
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "packed"
                try:
                    logits = pack(Files(options.model, Path(folder)), bits, path)
                    found = [logits(clip) for clip in clips]
                    row |= {"file_bytes": file_bytes(path), **_difference(found, reference)}
                except Exception as error:  # an error of a peer becomes its row
                    row = {"system": f"{name} at {bits} bits", "problem": why(error)}
            rows.append(row)
    return rows


def ours(files: Files, bits: int, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The encoder's linear layers at `bits`, all other weights at 8, one scale per channel, least squared error."""
    from mpq.checkpoint.packed import load_packed

    files.packed(bits, "mse").rename(path)
    return _logits(load_packed(path)[0])


def torchao(files: Files, bits: int, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Linear layers at `bits`, one scale per channel, written by its own safetensors support; the rest is float32."""
    from safetensors.torch import load_file, save_file
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict, unflatten_tensor_state_dict
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis

    model, _ = load_model(files.model)
    sub_byte = {"weight_dtype": getattr(torch, f"int{bits}"), "granularity": PerAxis(0)}
    quantize_(model, Int8WeightOnlyConfig() if bits == 8 else IntxWeightOnlyConfig(**sub_byte))
    tensors, metadata = flatten_tensor_state_dict(model.state_dict())
    path.mkdir()
    save_file(tensors, path / "model.safetensors", metadata=metadata)
    loaded, _ = load_model(files.model)
    state, _ = unflatten_tensor_state_dict(load_file(path / "model.safetensors"), metadata)
    loaded.load_state_dict(state, assign=True)
    return _logits(loaded)


def quanto(files: Files, bits: int, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Linear layers at `bits`, its state dict written as safetensors; one-dimensional convolutions stay float32."""
    from optimum.quanto import freeze, qint2, qint4, qint8, quantization_map, quantize, requantize
    from safetensors.torch import load_file, save_file

    model, _ = load_model(files.model)
    quantize(model, weights={2: qint2, 4: qint4, 8: qint8}[bits])
    freeze(model)
    path.mkdir()
    save_file(model.state_dict(), path / "model.safetensors")
    loaded, _ = load_model(files.model)
    requantize(loaded, load_file(path / "model.safetensors"), quantization_map(model), torch.device("cpu"))
    return _logits(loaded.eval())


def nncf(files: Files, bits: int, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """OpenVINO's form: linear layers and convolutions at `bits`, symmetric; in groups of 32 weights at 4."""
    if bits not in (8, 4):
        raise ValueError("its integer modes have 8 and 4 bits")
    from mpq.bench.systems import OpenVino

    system = OpenVino(f"openvino_int{bits}", (), f"int{bits}")
    system.make(files).rename(path)
    return system.load(path, 1)


PEERS: Mapping[str, Pack] = {"ours": ours, "torchao": torchao, "optimum-quanto": quanto, "NNCF": nncf}


def _logits(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    def logits(audio: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(audio)[None]).logits[0].numpy()

    return logits


def _bytes(model: Any) -> list[int]:
    return [tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()]


def _difference(found: list[np.ndarray], reference: list[np.ndarray]) -> dict[str, float]:
    logits, exact = np.concatenate(found), np.concatenate(reference)
    changed = (logits.argmax(-1) != exact.argmax(-1)).mean()
    return {
        "logit_error": float(np.linalg.norm(logits - exact) / np.linalg.norm(exact)),
        "changed_frames": float(changed),
    }


def _clips(processor: Any, options: Options) -> list[np.ndarray]:
    """The model's inputs for a few utterances of the embedded corpus, synthesized for this purpose."""
    if not options.clips:
        return [noise(1.0)]
    from mpq.data.dataset import SpeechDataset
    from mpq.models.ctc import CtcReader

    counts = {"train": 4, "dev-clean": 0, "dev-other": 0, "test-clean": options.clips, "test-other": 2}
    corpus = open_corpus(None, {"seed": 0, "utterances": counts}, ["train"], ["test-clean"], "stop", options.cache)
    data = SpeechDataset(corpus.test["test-clean"], CtcReader(processor), "stop")
    return [data[index]["inputs"].numpy() for index in range(len(data))]
