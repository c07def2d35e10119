"""Finds the tensors of a model to quantize; attaches and detaches their quantizers.

Quantizers are parametrizations of the weight, not replacements of the layer: some models (WavLM) read `q_proj.weight`
without ever calling `q_proj`, so that a replaced layer would silently stay at full precision.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from mpq.errors import UserError
from mpq.quant.places import Place, first_places, tensor_places
from mpq.quant.quantizer import LSQ, QuantizerSettings, WeightQuantizer

SEARCHED = "*encoder.layers.*"


@dataclass(frozen=True)
class Site:
    """A weight tensor to quantize.

    `name` is its name as a plain parameter (`wav2vec2.encoder.layers.0.attention.q_proj.weight`), whatever is attached;
    `searched` says whether its precision is searched for or fixed.
    """

    name: str
    shape: tuple[int, ...]
    numel: int
    searched: bool


def find_sites(model: nn.Module, searched: str = SEARCHED) -> list[Site]:
    """Return the sites of a model, plain or with quantizers attached, in the order of its modules.

    A site is every parameter with at least two dimensions larger than 1, except a table of positions (Whisper), which
    is added to the activations and multiplies nothing. It is searched when it is the weight of a linear layer
    (`is_linear`) whose module name matches the glob `searched` (an empty glob searches none). A tied parameter is one
    site, under its first name: Whisper's token embedding is searched where the glob matches the output layer (`*`).

    Raises:
        UserError: there is no site, or a non-empty glob matches no linear layer.
    """
    sites = []
    for places in tensor_places(model):
        weight = places[0].weight
        if sum(size > 1 for size in weight.shape) >= 2 and not _is_position_table(places[0]):
            is_searched = any(_is_searched(place, searched) for place in places)
            sites.append(Site(places[0].name, tuple(weight.shape), weight.numel(), is_searched))
    if not sites:
        raise UserError(f"{type(model).__name__} has no parameter to quantize (two dimensions larger than 1).")
    if searched and not any(site.searched for site in sites):
        linear = [name for name, module in model.named_modules() if is_linear(module)]
        raise UserError(f"the glob {searched!r} matches no linear layer; the model's are, for example, {linear[:3]}.")
    return sites


def is_linear(module: nn.Module) -> bool:
    """Return whether `module` multiplies every frame by its weight: an `nn.Linear`, or a pointwise `nn.Conv1d`.

    Conformers (Parakeet, Lasr, wav2vec2-conformer, w2v-BERT) have two such convolutions in every layer, with a weight
    `[out, in, 1]`. One with a `forward` of its own is left out, because its inputs may be arranged otherwise, as those
    of Parakeet's head are.
    """
    if isinstance(module, nn.Conv1d):
        plain = type(module).forward is nn.Conv1d.forward
        return plain and (*module.kernel_size, *module.stride, module.groups) == (1, 1, 1)
    return isinstance(module, nn.Linear)


def attach(
    model: nn.Module,
    sites: Iterable[Site],
    candidates: Sequence[int] | Mapping[str, int],
    settings: QuantizerSettings = LSQ,
    made: Mapping[str, WeightQuantizer] | None = None,
) -> dict[str, WeightQuantizer]:
    """Attach a quantizer to every site, in place, and return them by site name, in the order of `sites`.

    Searched sites get the `candidates` (bits), or the one precision that an assignment gives them by name; the others
    get `settings.fixed_bits`. Quantizers that a search has already `made` for the same weights are reused, since
    computing scales takes time. The model is first converted to float32 (so that trained weights are exact) and its
    weight normalisation folded; tied tensors share one quantizer. Attach after copying the teacher and deciding which
    parameters are trained, and before creating the optimizer.

    Raises:
        UserError: no site, a model that is already quantized, a name that the model lacks, or a precision outside 1..8.
    """
    if quantizers_of(model):
        raise UserError("the model already has quantizers: detach them first.")
    model.float()
    fold_weight_norm(model)
    places = {group[0].name: group for group in tensor_places(model)}
    quantizers = {}
    for site in sites:
        if site.name not in places:
            raise UserError(f"the model has no parameter {site.name!r}: take the sites of this model (find_sites).")
        bits = _candidates(site, candidates, settings.fixed_bits)
        weight = _checked(places[site.name][0])
        if made and site.name in made:
            (chosen,) = bits
            quantizers[site.name] = made[site.name].keep(chosen)
        else:
            quantizers[site.name] = WeightQuantizer(weight, bits, settings)
    if not quantizers:
        raise UserError("there is nothing to quantize: the list of sites is empty.")
    for name, quantizer in quantizers.items():
        for place in places[name]:
            place.add_quantizer(quantizer)
    return quantizers


def detach(model: nn.Module) -> None:
    """Remove every quantizer, in place, leaving the fake-quantized weights as plain parameters (the same objects).

    Raises:
        RuntimeError: a quantizer's precision is not chosen yet.
    """
    groups = [places for places in tensor_places(model) if places[0].quantizer is not None]
    with torch.no_grad():
        baked = [places[0].value for places in groups]  # compute all before writing any, since this may raise
        for places, value in zip(groups, baked, strict=True):
            places[0].weight.copy_(value)
    for places in groups:
        for place in places:
            place.remove_quantizer()


def quantizers_of(model: nn.Module) -> dict[str, WeightQuantizer]:
    """Return the attached quantizers by site name; none for a plain model."""
    return {name: place.quantizer for name, place in first_places(model).items() if place.quantizer is not None}


def fold_weight_norm(model: nn.Module) -> None:
    """Replace every parametrization that is not ours (weight normalisation) by the plain weight it yields, in place."""
    for places in list(tensor_places(model)):
        for place in places:
            if place.parametrizations is not None and place.quantizer is None:
                place.fold()


def check_finite(name: str, weight: Tensor) -> None:
    """Refuse a weight for which no scale exists.

    Raises:
        UserError: `weight` holds NaN or infinite values.
    """
    if not weight.isfinite().all():
        raise UserError(f"{name} holds NaN or infinite values: load or train the model again.")


def _candidates(site: Site, candidates: Sequence[int] | Mapping[str, int], fixed_bits: int) -> Sequence[int]:
    if not site.searched:
        return (fixed_bits,)
    return (candidates[site.name],) if isinstance(candidates, Mapping) else candidates


def _is_searched(place: Place, searched: str) -> bool:
    return place.tensor_name == "weight" and is_linear(place.module) and fnmatchcase(place.path, searched)


def _is_position_table(place: Place) -> bool:
    return isinstance(place.module, nn.Embedding) and place.path.endswith("embed_positions")


def _checked(place: Place) -> Tensor:
    """Return the weight to quantize; refuse one that can't be."""
    if isinstance(place.module, nn.RNNBase):
        raise UserError(f"{place.name} belongs to a recurrent layer, where torch ignores parametrizations.")
    check_finite(place.name, place.weight)
    return place.weight


def block_name(name: str) -> str:
    """Return the numbered layer of a site (`encoder.layers.0`), or the site's own name if there is none."""
    words = name.split(".")
    numbers = [place for place, word in enumerate(words) if word.isdigit()]
    return ".".join(words[: numbers[0] + 1]) if numbers else name
