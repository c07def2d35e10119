"""8-bit fake quantization of the inputs of quantized linear layers; off by default, since the method is weight-only.

This is a forward pre-hook on the layer, not a wrapper, so that the weight's quantizer and the names of all parameters
stay as they are. A layer that is never called has no input to quantize: WavLM's attention reads the weights of
`q_proj`, `k_proj`, `v_proj` and `out_proj` and passes them to PyTorch's attention, whose inputs therefore stay float.
So do those of pointwise convolutions.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from mpq.errors import UserError
from mpq.quant.fake_quantize import dequantize, fake_quantize, quantize
from mpq.quant.grid import grid
from mpq.quant.scales import spanning_scale

BITS = 8
GRID = grid(BITS)
_NAME = "activation_quantizer"


class ActivationQuantizer(nn.Module):
    """Fake-quantizes a layer's inputs `[..., in]` symmetrically to 8 bits, statically or dynamically.

    Static: one scale for all inputs, stored as its logarithm in `log_scales` `[1]` and learned in training like the
    weights' scales, as in LSQ (Esser et al. 2020, section 2). Dynamic (`log_scales` None): the scale follows each
    token's largest magnitude, and every input has gradient 1, as in SmoothQuant's per-token quantization (Xiao et al.,
    arXiv 2211.10438).
    """

    log_scales: nn.Parameter | None

    def __init__(self, scale: Tensor | None = None) -> None:
        """Take the static `scale` `[1]`, or None for dynamic."""
        super().__init__()
        self.register_parameter("log_scales", None if scale is None else nn.Parameter(scale.log()))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the fake-quantized `inputs`, with the same shape and dtype."""
        values = inputs.float()
        if self.log_scales is not None:
            return fake_quantize(values, self.log_scales.exp(), GRID).to(inputs.dtype)
        scale = spanning_scale(values.detach().abs().amax(dim=-1, keepdim=True), GRID)
        levels = dequantize(quantize(values.detach(), scale, GRID), scale, GRID)
        return (levels + (values - values.detach())).to(inputs.dtype)  # the added zero carries the inputs' gradient


def attach_activations(model: nn.Module, layers: Mapping[str, Tensor | None]) -> None:
    """Quantize the inputs of `layers`, module name -> static scale `[1]` or None for dynamic, in place.

    Raises:
        UserError: the model has no linear layer of that name, or its inputs are quantized already.
    """
    modules = dict(model.named_modules())
    for name, scale in layers.items():
        module = modules.get(name)
        if not isinstance(module, nn.Linear) or _NAME in module._modules:
            raise UserError(f"{name} must be a linear layer whose inputs are not quantized yet")
        module.add_module(_NAME, ActivationQuantizer(scale))
        module.register_forward_pre_hook(_quantize_inputs)


def detach_activations(model: nn.Module) -> None:
    """Remove every activation quantizer, in place."""
    for name in activation_quantizers_of(model):
        module = model.get_submodule(name)
        del module._modules[_NAME]
        for key in [key for key, hook in module._forward_pre_hooks.items() if hook is _quantize_inputs]:
            del module._forward_pre_hooks[key]


def activation_quantizers_of(model: nn.Module) -> dict[str, ActivationQuantizer]:
    """Return the attached activation quantizers by the names of their layers."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, ActivationQuantizer)}
    return {name.removesuffix(f".{_NAME}"): quantizer for name, quantizer in found.items()}


def _quantize_inputs(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    quantizer = module._modules[_NAME]
    assert quantizer is not None
    return (quantizer(args[0]), *args[1:])
