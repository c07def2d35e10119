"""From a model to a packed folder in one call, with whatever data is available.

Without data, weights are rounded. With audio, GPTQ compensates for the rounding. Both are made for a size of the file,
or for bits, which rounding errors then spread over the weights; the texts are compared with the float model's. Made for
a size, norms and biases can be trained after GPTQ, which takes audio alone, too. With audio and transcripts, the
paper's one stage trains the model, or steps are learned for the size of the coded file, and a held-out part evaluates
it. Each is a recipe of `conf/recipe`, composed by Hydra and run by `mpq.pipeline`.
"""

import functools
import hashlib
import json
import math
import re
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open

from mpq import checks, conf, settings, stages
from mpq.commands import script
from mpq.compress.output import Quantized, check_output, compress_to, copy_model, quant_method
from mpq.data.corpus import Corpus
from mpq.data.folder import tell_left_out
from mpq.data.librispeech import Found, Utterance, find, recordings
from mpq.errors import SizeError, UserError, unused
from mpq.models.hub import check_available, kind_at, known, local_folder
from mpq.models.kinds import CTC
from mpq.record.run_folder import RunFolder

RECIPES = {
    "round": "ptq_rtn_weight_error",
    "gptq": "ptq_gptq_weight_error",
    "one_stage": "one_stage",
    "learned_steps": "one_stage_rate",
}
_TRAINED = ("one_stage", "learned_steps")
_OWN = {
    "learned_steps": ["quantizer.granularity=per_tensor"],  # scales of channels would take a part of the budget
    "norms": ["distill=kl"],  # the float model's posteriors alone, since recordings may lack transcripts
}
RECIPES_OF_SIZE = {"round": "ptq_rtn_size", "gptq": "ptq_gptq_size", "norms": "size_norms"}
METHODS = tuple(dict.fromkeys([*RECIPES, *RECIPES_OF_SIZE]))
_BITS, _SMALLER = 3.5, 6.5  # by default: bits of a trained model, and how many times smaller one is that is not
_SMALL = 20e6  # parameters: a smaller model trains on a CPU in minutes, a larger one needs a GPU
_ANY_ENCODER = "*encoder.layer*"  # of any CTC family: layers, or layer as in SEW-D; only linear layers are looked at
_ANY_SEQ2SEQ = "whisper_tiny_en"  # of conf/model: its layers, context and labels suit any sequence-to-sequence model
_OF_TRAINING = {"trainer.updates": "updates", "trainer.learning_rate": "trainer.learning_rate"}  # as they are typed
_OF_NORMS = {"trainer.updates": "trainer.norm_updates", "trainer.learning_rate": "trainer.norm_learning_rate"}
_UPDATES, _NORM_UPDATES = 2000, 28  # of a large model, of one stage: a tenth of what the paper's rows use
_ELSEWHERE = {  # settings of scripts/run.py, and what takes their place here
    "target_bits": "write bits=... instead",
    "target_megabytes": "write megabytes=... instead",
    "data.root": "write data=FOLDER instead",
    "model.path": "write model=FOLDER instead",
    "smoke": "leave it out",
    "demo": "leave it out",
}


def _as_typed(call: Callable[..., Quantized]) -> Callable[..., Quantized]:
    """Let errors about the budget name it as it is typed here, not as scripts/run.py has it."""

    @functools.wraps(call)
    def wrapped(*arguments: Any, **more: Any) -> Quantized:
        try:
            return call(*arguments, **more)
        except UserError as error:
            raise UserError(re.sub("^target_(?=bits=|megabytes=)", "", str(error))) from None

    return wrapped


@_as_typed
def quantize_now(
    model: str | Path,
    bits: float | None = None,
    data: str | Path | None = None,
    output: str | Path | None = None,
    method: str = "auto",
    changes: dict[str, Any] | None = None,
    megabytes: float | None = None,
) -> Quantized:
    """Compress `model` (a folder, a Hub name, or one of conf/model); see the top of this file.

    To `bits` on average, or to a file of at most `megabytes` (millions of bytes), and at least 99.5 % of that, counting
    `model.safetensors` and `config.json`. By default a model that is trained gets 3.5 bits, and one that is not is
    made 6.5 times smaller than in float32: a Whisper of 3.5 bits is of no use untrained, that is (experiments/LOG.md).

    `output` is `quantized/<run's name>` by default. `method` is auto or one of `METHODS`. `changes` are settings by
    dotted name, such as `{"trainer.updates": 300}`; with `{"overwrite": True}` an older run and an older packed model
    in `output` are replaced.

    Raises: UserError if the model, the budget or the data can't be used, or `output` exists or can't be written.
    """
    for key in changes or {}:
        if key in _ELSEWHERE:
            raise UserError(f"the setting {key}= is for scripts/run.py alone: {_ELSEWHERE[key]}")
    folders = (None if data is None else Path(data), None if output is None else Path(output))
    size, given = megabytes, (*folders, method, changes or {})
    while True:
        try:
            return _quantize(str(model), bits, size, *given)
        except SizeError as impossible:
            if megabytes is not None or impossible.nearest == size:
                raise
            size = impossible.nearest  # at first by shapes alone, perhaps, then as measured


def _quantize(
    model: str,
    bits: float | None,
    megabytes: float | None,
    data: Path | None,
    output: Path | None,
    method: str,
    changes: dict[str, Any],
) -> Quantized:
    _check_budget(bits, megabytes)
    found = find(data) if data else None
    path, name = _model(model)
    check_available(path)
    _check_float(path)
    small = _is_small(path)
    of_size = megabytes is not None or (method == "norms" and bits is None)
    chosen, method = method, _method(method, found, small, of_size)
    if output is not None:
        check_output(output, overwrite=True)  # the rest needs the run's name
    if bits is None and megabytes is None:
        bits, megabytes = (_BITS, None) if method in _TRAINED else (None, _default_megabytes(path))
    budget = f"bits={bits:g}" if bits is not None else f"megabytes={megabytes!r}"
    recipe = (RECIPES if megabytes is None else RECIPES_OF_SIZE)[method]
    given = [f"recipe={recipe}", f"target_{budget}", *_OWN.get(method, [])]
    if method == "norms":
        changes = {_OF_NORMS.get(key, key): value for key, value in changes.items()}
    cfg = _config(name, path, small, given, found, changes)
    output = Path("quantized", cfg.exp) if output is None else output
    _tell_unused(chosen, method, found, changes)
    made = RunFolder(cfg.root, cfg.exp, cfg.seed).model
    check_output(output, cfg.overwrite, made if found and found.transcribed else None)
    checks.check_recipe(cfg)
    from mpq import pipeline  # here: torch takes seconds, which no mistake needs

    stages.check_target(cfg)
    if found and found.transcribed:
        result = pipeline.run(cfg)
        assert result is not None, "one process runs this"
        copy_model(made, output)
        return Quantized(output, method, result.bits, result.size, result)
    audio = recordings(found.root) if found else None
    tell_left_out(audio.skipped if audio else [])
    heard = audio.utterances if audio else []
    corpus = Corpus(data.name if data else "none", _hash(heard), heard, {}, [])
    average, size, same = compress_to(cfg, corpus, output, _how_to_measure(model, budget, method))
    return Quantized(output, method, average, size, None, same)


def _check_budget(bits: float | None, megabytes: float | None) -> None:
    """Raise UserError if both are given, or one can't be used."""
    for name, value in (("bits", bits), ("megabytes", megabytes)):
        if value is not None and not isinstance(value, Real):
            raise UserError(f"{name}={value!r} must be a number")
    if bits is not None and megabytes is not None:
        raise UserError(f"bits={bits:g} and megabytes={megabytes:g} both set the size of the file: give one of them")
    if megabytes is not None and not megabytes > 0:
        raise UserError(f"megabytes={megabytes:g} must be a number of megabytes above 0, such as 12")
    if bits is not None and not 2 <= bits <= 8:
        raise UserError(f"bits={bits:g} must be a number from 2 to 8")


def _default_megabytes(path: str) -> float:
    size = 4 * _parameters(path)
    if not size:
        from mpq.models.loading import float_bytes  # here: torch takes seconds, which no mistake needs

        size = float_bytes(path)
    return float(f"{size / _SMALLER / 1e6:.3g}")


def _tell_unused(chosen: str, method: str, found: Found | None, changes: dict[str, Any]) -> None:
    """Warn about what was asked for and has no effect in this call."""
    which = f"method={method}" if chosen == method else f"method={method}, which this data allows,"
    if method not in (*_TRAINED, "norms"):
        unused([_OF_TRAINING[key] for key in changes if key in _OF_TRAINING], f"{which} does not train")
    if not (found and found.transcribed):
        unused(["root"] if "root" in changes else [], "a run is recorded only where transcripts allow to measure it")


def _hash(recordings: list[Utterance]) -> str:
    """What names these recordings in a cache of what a model wrote about them."""
    files = [(str(recording.path.resolve()), recording.path.stat().st_size) for recording in recordings]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _how_to_measure(model: str, budget: str, method: str) -> str:
    """The sentence of the model card; it names a folder without its path, because cards are read on other machines."""
    named = Path(model).resolve().name if Path(model).is_dir() else model
    what = "the same weights" if method == "round" else "a model of this kind, fitted to the rest of the recordings,"
    same = script("quantize", f"model={named}", budget, f"method={method}", "data=FOLDER")
    where = "where FOLDER has recordings with transcripts in LibriSpeech's layout"
    return f"`{same}` makes {what} and measures its WER on a held-out part, {where}."


def _model(model: str) -> tuple[str, str | None]:
    """The path or Hub name of the model, and its group in conf/model if it has one."""
    return known(model), model if conf.model(model) and not Path(model).is_dir() else None


def _method(method: str, found: Found | None, small: bool, of_size: bool) -> str:
    """The key of `RECIPES` to use, or `of_size` that of `RECIPES_OF_SIZE`: `method`, or the best that the data allows.

    Raises: UserError if `method` is unknown or needs more data, or bits.
    """
    if method not in ("auto", *METHODS):
        raise UserError(f"method={method} must be one of auto, {', '.join(METHODS)}")
    if method in _TRAINED and of_size:
        others = " or ".join(f"method={other}" for other in RECIPES_OF_SIZE)
        raise UserError(f"method={method} trains for bits=...; megabytes=... takes {others}")
    if method == "norms" and not of_size:
        raise UserError("method=norms is for a size of the file: give megabytes=... in place of bits=...")
    if method in _TRAINED and not (found and found.transcribed):
        raise UserError(f"method={method} needs data=FOLDER with transcripts (*.trans.txt, as in LibriSpeech)")
    if method in ("gptq", "norms") and not found:
        raise UserError(f"method={method} needs data=FOLDER with recordings; transcripts are not needed")
    if method != "auto":
        return method
    if not found:
        return "round"
    if of_size:
        return "gptq"
    if not found.transcribed or small:
        return "one_stage" if found.transcribed else "gptq"
    import torch

    return "one_stage" if torch.cuda.is_available() else "gptq"


def _config(
    name: str | None,
    path: str,
    small: bool,
    given: list[str],
    found: Found | None,
    changes: dict[str, Any],
) -> DictConfig:
    """The settled config of the run, as scripts/run.py would compose it from its command line, where `given` begins."""
    words = [*given, "logger.mode=off"]
    is_ctc = name is None and kind_at(path) == CTC
    words.append(f"trainer={'tiny' if small else 'paper'}" if is_ctc else f"model={name or _ANY_SEQ2SEQ}")
    settings.register_resolvers()
    with conf.composing():
        cfg = compose("config", words)
    own: dict[str, Any] = {"data.root": None, "data.corpus": None, "data.on_bad_audio": "skip"}
    if found and found.transcribed:
        own |= {"data.root": str(found.root), "data.train": found.train, "data.test": found.test}
    if not name:
        called = re.sub(r"\W+", "_", path.rstrip("/").rpartition("/")[2].lower())[:64] or "model"
        own |= {"model.name": called, "model.path": path}
        own |= {"model.searched": _ANY_ENCODER} if is_ctc else {}
        own |= {"model.architecture": None}  # it would create random weights
    if not small:
        own |= {"trainer.updates": _UPDATES, "trainer.norm_updates": _NORM_UPDATES}
        own |= {"trainer.calibration_utterances": 16}
    for key, value in (own | changes).items():
        OmegaConf.update(cfg, key, value, force_add=True)
    return settings.settle(cfg)


def _parameters(path: str) -> int:
    """The parameters in the model's files; 0 if they are not known without torch, or not downloaded yet."""
    folder = local_folder(path)
    count = 0
    try:
        for shard in folder.glob("model*.safetensors") if folder else ():
            with safe_open(shard, framework="numpy") as file:
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError):  # loading it will say what is wrong
        return 0
    return count


def _is_small(path: str) -> bool:
    """Whether the model is known to be small; one that is not downloaded yet counts as large."""
    folder = local_folder(path)
    pickled = sum(file.stat().st_size // 4 for file in folder.glob("pytorch_model*.bin")) if folder else 0
    return 0 < _parameters(path) + pickled < _SMALL


def _check_float(path: str) -> None:
    """Raise UserError for a model that is quantized already."""
    folder = local_folder(path)
    if folder and (method := quant_method(folder)):
        raise UserError(f"{path} is quantized already ({method}): name the float model that it was made from")
