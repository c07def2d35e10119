import copy
import re
from dataclasses import replace

import noise_speech
import numpy as np
import pytest
import torch
from test_recipes import Experiment
from tiny_speech import speech_of

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)
from mpq.errors import UserError
from mpq.quant import quantizer
from mpq.quant.calibration import Calibration
from mpq.quant.grid import grid
from mpq.quant.scales import initial_scale
from mpq.quant.sites import attach, find_sites, quantizers_of
from mpq.record.search import read_search
from mpq.search.weight_error import WeightError

CANDIDATES = (1, 2, 3, 8)


@pytest.fixture
def seed():
    value = int(np.random.default_rng().integers(2**31))
    print("seed:", value)
    return value


def bound(model, seed, target=3.0, **settings):
    search = WeightError(CANDIDATES, **settings)
    search.bind([site for site in find_sites(model) if site.searched], target, seed)
    return search


def squared_error(weight, bits):
    """METHOD's formula in NumPy: W_q = s (clamp(round(W / s - offset), ...) + offset), one scale a channel."""
    scale = initial_scale(weight, grid(bits), "per_channel").double().numpy()
    values, offset = weight.detach().double().numpy(), 0.5 if bits <= 2 else 0.0
    codes = np.clip(np.round(values / scale - offset), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return ((scale * (codes + offset) - values) ** 2).sum()


@pytest.mark.parametrize("share", ["tensor", "block"])
def test_it_is_the_squared_error_of_the_stored_weights(seed, share):
    model = noise_speech.model(seed)
    search = bound(model, seed, share=share)
    before = copy.deepcopy(model.state_dict())
    search.measure(Calibration(speech_of(model), []))
    want = [
        [sum(squared_error(model.get_parameter(site.name), bits) for site in unit.sites) for bits in CANDIDATES]
        for unit in search.units
    ]
    np.testing.assert_allclose(search.sensitivity.numpy(), want, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_assignment_errs_least_of_all_within_the_budget(seed):
    """Against every assignment of a model with few sites, one of them much wider than the others."""
    model = noise_speech.model(seed, layers=1)
    search = bound(model, seed, target=2.5)
    with torch.no_grad():
        model.get_parameter(search.sites[0].name).mul_(20)
    search.measure(Calibration(speech_of(model), []))
    errors, sizes = search.sensitivity.numpy(), search.sizes.numpy()
    columns = np.stack(np.meshgrid(*[range(len(CANDIDATES))] * len(sizes)), -1).reshape(-1, len(sizes))
    fits = np.array(CANDIDATES)[columns] @ sizes <= 2.5 * sizes.sum()
    least = errors[np.arange(len(sizes)), columns[fits]].sum(1).min()
    assignment = search.assignment()
    chosen = [CANDIDATES.index(assignment[site.name]) for site in search.sites]
    assert errors[np.arange(len(sizes)), chosen].sum() == pytest.approx(least)
    assert assignment[search.sites[0].name] == max(assignment.values())


def test_the_recipe_without_data_needs_none(tmp_path):
    """No utterance at all; the weights are the teacher's, rounded."""
    experiment = Experiment(tmp_path)
    experiment.corpus = replace(experiment.corpus, train=[])
    model, assignment, ledger = experiment.run("work", "recipe=ptq_rtn_weight_error", "target_bits=2.7")
    quantizers = quantizers_of(model)
    assert {name: quantizers[name].bits for name in assignment} == assignment and len(set(assignment.values())) > 1
    assert ledger.time().stages[0].audio_seconds == 0
    for name in assignment:
        path, _ = name.rsplit(".", 1)
        original = model.get_submodule(path).parametrizations.weight.original
        assert torch.equal(original, experiment.teacher.get_parameter(name))


def test_the_recipe_with_audio_compensates(tmp_path):
    experiment = Experiment(tmp_path)
    model, assignment, ledger = experiment.run("work", "recipe=ptq_gptq_weight_error", "target_bits=2.7")
    assert ledger.time().stages[0].audio_seconds > 0
    for name in assignment:
        path, _ = name.rsplit(".", 1)
        original = model.get_submodule(path).parametrizations.weight.original
        assert not torch.equal(original, experiment.teacher.get_parameter(name))


@pytest.mark.parametrize("recipe", ["ptq_rtn_weight_error", "ptq_gptq_kl"])
def test_each_scale_is_searched_once_and_only_the_chosen_ones_stay(tmp_path, monkeypatch, recipe):
    """The weights are, bit for bit, those of quantizers with all candidates, made anew and frozen."""
    searched, search = [], quantizer.starting_scale
    monkeypatch.setattr(quantizer, "starting_scale", lambda *given: (searched.append(given), search(*given))[1])
    experiment = Experiment(tmp_path)
    calibrate = [] if recipe == "ptq_rtn_weight_error" else ["recipe.stages.round.calibrate=null"]
    model, assignment, _ = experiment.run("work", f"recipe={recipe}", "target_bits=2.7", *calibrate)
    (learned,) = read_search(tmp_path / "work" / "round" / "search.json")
    made = quantizers_of(model)
    fixed = len(made) - len(assignment)
    assert len(set(assignment.values())) > 1 and fixed > 0
    assert len(searched) == len(assignment) * len(learned.candidates) + fixed

    anew = copy.deepcopy(experiment.teacher)
    full = attach(anew, find_sites(anew), learned.candidates)
    for name, bits in assignment.items():
        full[name].freeze(bits)
    for name in made:
        assert made[name].candidates == (made[name].bits,)
        module, _, leaf = name.rpartition(".")
        assert torch.equal(getattr(model.get_submodule(module), leaf), getattr(anew.get_submodule(module), leaf))


def test_a_weight_that_no_scale_fits_is_named(seed):
    model = noise_speech.model(seed)
    search = bound(model, seed)
    with torch.no_grad():
        model.get_parameter(search.sites[3].name)[1, 1] = torch.nan
    with pytest.raises(UserError, match=rf"^{re.escape(search.sites[3].name)} holds NaN or infinite values"):
        search.measure(Calibration(speech_of(model), []))
