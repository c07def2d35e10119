"""Which kind of speech recognition model a config.json describes, by transformers' own lists of classes."""

from collections.abc import Mapping
from typing import Any

CTC = "CTC"
SEQ2SEQ = "sequence-to-sequence"
AUTO_CLASSES = {CTC: "AutoModelForCTC", SEQ2SEQ: "AutoModelForSpeechSeq2Seq"}  # of transformers


def classes(kind: str) -> dict[str, str]:
    """Return the class names of a kind's models by model type."""
    from transformers.models.auto import modeling_auto

    lists = {CTC: "MODEL_FOR_CTC_MAPPING_NAMES", SEQ2SEQ: "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES"}
    return dict(getattr(modeling_auto, lists[kind]))


def kind_of(config: Mapping[str, Any]) -> str | None:
    """Return the kind of the model that `config` (the content of config.json) names; None if it is of neither kind.

    Its `architectures` decide; without any, its `model_type` does.
    """
    names = config.get("architectures") or []
    if not names:
        return next((kind for kind in AUTO_CLASSES if config.get("model_type") in classes(kind)), None)
    if any("CTC" in name for name in names):
        return CTC
    return SEQ2SEQ if set(names) & set(classes(SEQ2SEQ).values()) else None
