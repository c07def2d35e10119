"""How a stage is optimized: the settings of `conf/trainer/`, and their checks."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_wsd_schedule

from mpq.train.rules import check_optimization


@dataclass(frozen=True)
class Optimization:
    """AdamW with linear warm-up, a constant rate, and linear decay to zero.

    updates: optimizer steps. audio_seconds: padded audio per batch. pad_seconds: a batch's length is rounded up to a
    multiple of it, 0 for none. learning_rate: of the weights. vector_learning_rate: of norms and biases, None for
    that of the weights. scale_learning_rate: of the logarithms of the quantizers' scales, so it is relative. warmup,
    decay: shares of the updates. clip: bound on the gradient's norm, 0 for none. interval: updates between
    checkpoints. accumulate: batches per update. dropout: whether dropout and masking are on. train_feature_encoder:
    whether the convolutions on the audio are trained. workers: processes that decode audio.

    Raises: UserError for an invalid value.
    """

    updates: int
    audio_seconds: float
    learning_rate: float
    scale_learning_rate: float
    weight_decay: float
    warmup: float
    decay: float
    clip: float
    interval: int
    accumulate: int
    dropout: bool
    train_feature_encoder: bool
    workers: int
    pad_seconds: float = 0.0
    vector_learning_rate: float | None = None

    def __post_init__(self) -> None:
        check_optimization(asdict(self))

    def optimizer(self, model: nn.Module, searched: list[dict[str, Any]]) -> AdamW:
        """Return AdamW (Loshchilov and Hutter 2019) for the trained parameters of `model` and a search's groups.

        The model has three groups: matrices (with weight decay), vectors, and the scales of the quantizers.
        """
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        scales = [p for name, p in named if name.endswith("log_scales")]
        weights = [p for name, p in named if not name.endswith("log_scales")]
        of_vectors = self.learning_rate if self.vector_learning_rate is None else self.vector_learning_rate
        groups: list[dict[str, Any]] = [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in weights if p.ndim <= 1], "lr": of_vectors},
            {"params": scales, "lr": self.scale_learning_rate},
            *searched,
        ]
        return AdamW([group for group in groups if group["params"]], lr=self.learning_rate, weight_decay=0.0)

    def schedule(self, optimizer: Optimizer) -> LambdaLR:
        """Return warm-up, constant, decay: each group's rate is zero at the first update and again after the last."""
        return get_wsd_schedule(
            optimizer,
            num_warmup_steps=round(self.warmup * self.updates),
            num_decay_steps=round(self.decay * self.updates),
            num_training_steps=self.updates,
            decay_type="linear",
        )
