"""Loads a fine-tuned speech recognition model of either kind, or makes one with random weights.

The model is loaded by its kind's auto class of transformers and the processor by `AutoProcessor`, from a folder or the
Hub; nothing here depends on a model family's name.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mpq.errors import UserError, first_line
from mpq.models.ctc import CtcModel
from mpq.models.hub import check_available, kind_at, local_folder, source_of
from mpq.models.kinds import AUTO_CLASSES, CTC, classes, kind_of
from mpq.models.languages import language_of
from mpq.models.processor import load_processor, takes_waveform
from mpq.models.seq2seq import Seq2SeqModel
from mpq.models.speech import DEFAULT, Choices, SpeechModel

_KINDS: dict[str, type[SpeechModel]] = {kind.KIND: kind for kind in (CtcModel, Seq2SeqModel)}


def speech_model(model: Any, processor: Any, choices: Choices = DEFAULT) -> SpeechModel:
    """Return `model` and its `processor` as the `SpeechModel` of its kind.

    Raises: UserError if the model lacks something that its kind needs, or a choice does not suit it.
    """
    config = {"architectures": [type(model).__name__], "model_type": model.config.model_type}
    return _KINDS[kind_of(config) or CTC](model, processor, choices)


def load(path: str, dtype: torch.dtype = torch.float32, language: str | None = None) -> tuple[nn.Module, Any]:
    """Return the fine-tuned model at `path` (folder, Hub name or NAME@REVISION) in eval mode, and its processor.

    A model in the local Hub cache is read from there without contacting the Hub. A mask embedding that the checkpoint
    lacks is set to zero. `language`: whose adapter to load, of a CTC model with one for each language.

    Raises: UserError if there is no such model, it has no trained head or no processor, or it is damaged, or `language`
    is not one of several that can be chosen.
    """
    check_available(path)
    import transformers
    from transformers.utils import logging

    kind = kind_at(path)
    spoken = language_of(path, language)
    chosen = {"target_lang": spoken.name} if spoken else {}
    source, revision = source_of(path)
    if local_folder(path):
        logging.disable_progress_bar()  # needed only for downloads; reading a file from disk takes no time
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # hides its table of mismatched tensors; the errors below say what matters
    try:
        auto = getattr(transformers, AUTO_CLASSES[kind])
        adapter = chosen if spoken and spoken.adapter else {}
        model, info = auto.from_pretrained(source, dtype=dtype, output_loading_info=True, **revision, **adapter)
    except Exception as error:  # transformers may raise anything on damaged files
        reason = first_line(error)
        if "ignore_mismatched_sizes" in reason:
            reason = "the shapes of its weights differ from those in its config.json"
        if "deserializing header" in reason:
            raise UserError(f"the weights of {path} are damaged or truncated: {reason}") from None
        raise UserError(f"{path} is not a {kind} speech model that transformers can load: {reason}") from None
    finally:
        logging.set_verbosity(verbosity)
    missing, optional = sorted(info["missing_keys"]), _KINDS[kind].OPTIONAL_WEIGHTS
    if untrained := [name for name in missing if not name.endswith(optional)]:
        raise UserError(f"{path} is not fine-tuned for {kind}: its weights lack {', '.join(untrained[:3])}")
    for name in missing:
        model.get_parameter(name).data.zero_()  # else transformers draws it at each load, and no two loads are equal
    for name, value in chosen.items():
        setattr(model, name, value)  # where the weights themselves are that language's
    return _KINDS[kind].prepare(model), _load_processor(path, source, revision | chosen)


def float_bytes(path: str) -> int:
    """Return the bytes of the parameters of the model at `path` (as for `load`) in float32, from its config alone.

    Raises: UserError if it has none that can be used.
    """
    import transformers

    source, revision = source_of(path)
    try:
        config = transformers.AutoConfig.from_pretrained(source, **revision)
        with torch.device("meta"):
            model = getattr(transformers, AUTO_CLASSES[kind_at(path)]).from_config(config)
    except Exception as error:  # transformers may raise anything on damaged files
        raise UserError(f"the config.json of {path} can't be used: {first_line(error)}") from None
    return 4 * sum(parameter.numel() for parameter in model.parameters())


def _load_processor(path: str, source: str, settings: Mapping[str, str]) -> Any:
    mend = "add the files that its processor's save_pretrained writes"
    try:
        processor = load_processor(source, **settings)
    except (ValueError, OSError, KeyError, TypeError, ImportError) as error:
        reason = "it lacks its vocabulary" if isinstance(error, TypeError) else first_line(error)
        raise UserError(f"{path} has no processor that can be loaded ({reason}): {mend}") from None
    for part in ("feature_extractor", "tokenizer"):
        if not hasattr(processor, part):
            raise UserError(f"{path} has no {part}: {mend}")
    return processor


def from_scratch(architecture: Mapping[str, Any], seed: int) -> tuple[nn.Module, Any]:
    """Return a model with random weights and a processor for it: over letters for CTC, over bytes for the other kind.

    `architecture`: `model_type` and the arguments of its transformers configuration; with `pretrained`, a folder or
    Hub name (NAME@REVISION), all weights are that model's but those of a CTC head, which are random.

    Raises: UserError if transformers has no model of that type of either kind, or a CTC model that takes features, or
    the pretrained one can't be loaded or lacks more than a head.
    """
    import transformers

    arguments = dict(architecture)
    pretrained = arguments.pop("pretrained", None)
    model_type = arguments.pop("model_type", None)
    kind = kind_of({"model_type": model_type})
    if kind is None:
        choices = ", ".join(classes(CTC))
        raise UserError(
            f"model.architecture.model_type={model_type} has no CTC model; it must be one of {choices}, or whisper"
        )
    processor, own, generation = _KINDS[kind].processor_from_scratch(arguments)
    torch.manual_seed(seed)
    if pretrained:
        model, processor.feature_extractor = _with_new_head(str(pretrained), kind, {**own, **arguments})
        return _KINDS[kind].prepare(model), processor
    config = transformers.AutoConfig.for_model(model_type, **own, **arguments)
    model = getattr(transformers, AUTO_CLASSES[kind]).from_config(config)
    if takes_waveform(processor) != (model.main_input_name == "input_values"):
        raise UserError(f"model.architecture.model_type={model_type} takes features: start from a checkpoint of it")
    if generation:
        model.generation_config = transformers.GenerationConfig(**generation)
    return _KINDS[kind].prepare(model), processor


def _with_new_head(path: str, kind: str, settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the pretrained encoder at `path` with a CTC head of random weights, and its feature extractor."""
    import transformers

    if kind != CTC:
        raise UserError(f"model.architecture.pretrained={path} is for CTC models, whose head is new")
    source, revision = source_of(path)
    try:
        config = transformers.AutoConfig.from_pretrained(source, **revision, **settings)
        auto = getattr(transformers, AUTO_CLASSES[kind])
        given = {"config": config, "dtype": torch.float32, **revision}
        model, info = auto.from_pretrained(source, output_loading_info=True, **given)
        extractor = transformers.AutoFeatureExtractor.from_pretrained(source, **revision)
    except Exception as error:  # transformers may raise anything on damaged files
        reason = first_line(error)
        raise UserError(f"model.architecture.pretrained={path} can't be loaded: {reason}") from None
    lacking = sorted(info["missing_keys"])
    if strange := [name for name in lacking if not name.startswith("lm_head.") and not name.endswith("spec_embed")]:
        raise UserError(f"model.architecture.pretrained={path} lacks {', '.join(strange[:3])}")
    return model, extractor
