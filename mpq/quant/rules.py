"""What the settings of the quantizers must be; needs no torch, so that a mistake in a config is told at once.

The classes that take these settings check the same.
"""

from typing import Any, Literal, get_args

from mpq.errors import UserError

Granularity = Literal["per_tensor", "per_channel"]
Clipping = Literal["mse", "minmax", "percentile", "entropy"]
ActivationKind = Literal["none", "static", "dynamic"]
Compile = Literal["auto"] | bool


def check_weights(granularity: Any, clipping: Any, fixed_bits: Any) -> None:
    """Check the settings of `mpq.quant.quantizer.QuantizerSettings`.

    Raises:
        UserError: an unknown granularity or clipping, or bits that are not a whole number from 1 to 8.
    """
    _check_choice("granularity", granularity, get_args(Granularity))
    _check_choice("clipping", clipping, get_args(Clipping))
    if type(fixed_bits) is not int or not 1 <= fixed_bits <= 8:
        raise UserError(f"quantizer.fixed_bits={fixed_bits} must be a whole number from 1 to 8")


def check_activations(kind: Any, percentile: Any, utterances: Any) -> None:
    """Check the settings of `mpq.quant.activation_scales.Activations`.

    Raises:
        UserError: a value that can't be used.
    """
    _check_choice("activations", kind, get_args(ActivationKind))
    if type(percentile) not in (int, float) or not 50 <= percentile <= 100:
        raise UserError(f"quantizer.activation_percentile={percentile} must be a number from 50 to 100")
    if type(utterances) is not int or utterances < 1:
        raise UserError(f"trainer.calibration_utterances={utterances} must be a whole number of 1 or more")


def check_gptq(utterances: Any, damping: Any = 0.01, block: Any = 128) -> None:
    """Check the settings of `mpq.quant.gptq.Gptq`.

    Raises:
        UserError: a value that can't be used.
    """
    whole = all(type(count) is int and count >= 1 for count in (utterances, block))
    if not whole or type(damping) not in (int, float) or not damping > 0:
        raise UserError(f"GPTQ needs utterances={utterances}, block={block} and damping={damping} to be positive")


def check_compile(choice: object) -> None:
    """Check what `mpq.quant.compiled.choose` takes.

    Raises:
        UserError: any other value.
    """
    if choice not in ("auto", True, False):
        raise UserError(f"trainer.compile={choice} must be auto, true or false")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"quantizer.{name}={value} must be one of {', '.join(choices)}")
