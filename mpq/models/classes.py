"""Which of transformers' auto classes loads a speech recognition model: the two kinds that are known here.

Importing this does not import torch or a model's code.
"""

from typing import Any

from transformers.models.auto import modeling_auto

CTC = "AutoModelForCTC"
SEQ2SEQ = "AutoModelForSpeechSeq2Seq"

_CLASSES = {
    CTC: modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES,
    SEQ2SEQ: modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
}


def auto_class(model_type: Any, architectures: Any) -> str | None:
    """Return the name of the auto class for a config.json's `model_type` and `architectures`; None if there is none."""
    for name, classes in _CLASSES.items():
        if isinstance(model_type, str) and model_type in classes and architectures == [classes[model_type]]:
            return name
    return None
