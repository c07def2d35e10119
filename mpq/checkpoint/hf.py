"""Packed folders in transformers' own API: `from_pretrained`, `save_pretrained`, `pipeline`.

`import mpq` registers the two classes below under the quant_method "mpq" (see `mpq.import_hooks`); then

    model = AutoModelForCTC.from_pretrained(folder)                                                  float weights
    model = AutoModelForCTC.from_pretrained(folder, quantization_config=MpqConfig(keep_packed=True))  packed in memory

give the logits of `load_packed`, bit for bit, after the same checks (Whisper: AutoModelForSpeechSeq2Seq). transformers
imports this file while it is only partly imported itself, so whatever needs a model class is imported where it is used.
"""

import logging
import warnings
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from transformers.quantizers import auto as registry
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from mpq.checkpoint.format import PACKED_VERSION, QUANT_METHOD, WEIGHTS_FILE
from mpq.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_logger = logging.getLogger(__name__)


class MpqConfig(QuantizationConfigMixin):
    """The `quantization_config` of a packed folder (see `format`), and how to load it.

    `keep_packed`: weights stay packed in memory and are unpacked at each use; the model then takes a fifth or less of
    the float model's memory but runs slower. Otherwise they are unpacked once. This is an option of loading only and is
    never saved.
    """

    def __init__(self, keep_packed: bool = False, **block: Any) -> None:
        self.quant_method = QUANT_METHOD  # pyright: ignore[reportAttributeAccessIssue]
        self.keep_packed = keep_packed
        self.block: dict[str, Any] = {"format_version": PACKED_VERSION, **block, "quant_method": QUANT_METHOD}

    def to_dict(self) -> dict[str, Any]:
        """Return the block for config.json, without the digest, since config.json is being rewritten."""
        return {key: value for key, value in self.block.items() if key != "config_sha256"}

    def get_loading_attributes(self) -> dict[str, Any]:
        """Return the settings of a config given to `from_pretrained` that override the folder's."""
        return {"keep_packed": self.keep_packed}


class MpqQuantizer(HfQuantizer):
    """Hooks a packed folder into transformers' loading and saving.

    Before loading, the folder is checked as `load_packed` does and the weights of the empty model become packed buffers
    with the file's names, which transformers then fills; afterwards they are unpacked unless `keep_packed` is true.
    """

    quantization_config: MpqConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Refuse a model that is not packed: this class only loads quantized models."""
        if not self.pre_quantized:
            raise UserError("MpqConfig only loads packed folders: use mpq.quantize for a float model")

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return float32, whatever dtype is requested: the scales are float32, and the file's checksum covers them."""
        if dtype is not torch.float32:
            _logger.warning("a packed model loads as float32, not %s; model.dequantize(dtype) converts it", dtype)
        return torch.float32

    def _process_model_before_weight_loading(
        self, model: "PreTrainedModel", checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> "PreTrainedModel":
        from mpq.checkpoint.hf_model import make_packed

        files = [Path(file) for file in checkpoint_files or []]
        if [file.name for file in files] != [WEIGHTS_FILE]:
            raise UserError(f"a packed model is one file {WEIGHTS_FILE}, but got {[file.name for file in files]}")
        self._folder = files[0].parent
        self._weight_norms = make_packed(model, self._folder)
        self._declared_ties = model.all_tied_weights_keys
        model.all_tied_weights_keys = {}  # transformers expects float parameters; we tie them after loading
        return model

    def _process_model_after_weight_loading(self, model: "PreTrainedModel", **kwargs: Any) -> "PreTrainedModel":
        from mpq.checkpoint.hf_model import decode_all, num_parameters, save_pretrained, tie, unpack_all

        decode_all(model, self._folder, self.quantization_config.block)
        if not self.quantization_config.keep_packed:
            unpack_all(model, self.quantization_config.block)
        tie(model, self.quantization_config.block)
        model.all_tied_weights_keys = self._declared_ties
        model.save_pretrained = MethodType(save_pretrained, model)
        model.num_parameters = MethodType(num_parameters, model)
        return model

    # The base class has no annotations, so a type checker assumes that these three methods return nothing.

    def get_state_dict_and_metadata(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model: "PreTrainedModel"
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the tensors of the packed file, and put their digest into the config, which is written afterwards.

        With adapters, transformers writes theirs alone, so all tensors are returned for it to choose from.
        """
        from mpq.checkpoint.hf_model import has_adapters, packed_state

        if has_adapters(model):
            return model.state_dict(), {}
        return packed_state(model, self.quantization_config.block), {}

    def _dequantize(self, model: "PreTrainedModel", dtype: torch.dtype | None = None) -> "PreTrainedModel":
        """Convert to a float model permanently, which transformers' own classes can load: `model.dequantize()`."""
        from mpq.checkpoint.hf_model import make_float

        make_float(model, self.quantization_config.block, self._weight_norms)
        del model.save_pretrained, model.num_parameters  # the class's own are a float model's
        named = getattr(torch, dtype) if isinstance(dtype, str) else dtype  # after a save_pretrained
        return model.to(named)  # pyright: ignore[reportArgumentType]

    def is_serializable(self, *args: Any, **kwargs: Any) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return True: `save_pretrained` writes the packed form."""
        return True

    @property
    def is_trainable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return True: adapters can be trained on it. transformers itself refuses to train the quantized weights."""
        return True


def register() -> None:
    """Enter the two classes into transformers' registry, once; done when this module is imported."""
    if QUANT_METHOD in registry.AUTO_QUANTIZER_MAPPING:
        return
    registry.register_quantization_config(QUANT_METHOD)(MpqConfig)
    registry.register_quantizer(QUANT_METHOD)(MpqQuantizer)
    # Only configs in this list may change how a quantized folder is loaded (keep_packed); there is no API to add one.
    loading = getattr(registry, "LOADING_ATTRIBUTES_CONFIG_TYPES", ())
    registry.LOADING_ATTRIBUTES_CONFIG_TYPES = (*loading, MpqConfig)
    # That nothing but keep_packed counts is what MpqConfig(keep_packed=True) means; warnings of other formats stay.
    warnings.filterwarnings("ignore", message=r"You passed `quantization_config`.*\['keep_packed'\]")


register()
