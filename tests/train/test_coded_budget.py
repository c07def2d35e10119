"""A budget in coded bits: what the searches get, and the bytes of the file that comes out."""

import math

import numpy as np
import pytest
import torch
import zstandard
from safetensors import safe_open
from tiny_speech import ARCHITECTURE, speech_of
from tiny_stage import CPU, load, optimization
from torch import nn

from mpq.checkpoint.packed import save_packed
from mpq.checkpoint.packing import pack
from mpq.checkpoint.size import WEIGHTS_FILE
from mpq.errors import UserError
from mpq.models.loading import from_scratch
from mpq.quant.gptq import Gptq
from mpq.quant.places import first_places, tensor_places
from mpq.quant.sites import attach, find_sites, quantizers_of
from mpq.record.ledger import Ledger
from mpq.search.fixed import FixedSearch
from mpq.search.gumbel import GumbelSearch
from mpq.search.rate import RateSearch
from mpq.search.weight_error import WeightError
from mpq.train import precisions
from mpq.train.coded_budget import coded_bytes, lengthen
from mpq.train.context import RunContext, StageSettings
from mpq.train.loss import Loss
from mpq.train.stage import run_stage


@pytest.fixture(scope="module")
def loaded(model_folder, speech_folder):
    """A model of one layer, wide enough for its codes to be coded, and the training utterances."""
    _, dataset = load(model_folder, speech_folder)
    wide = {**ARCHITECTURE, "hidden_size": 96, "intermediate_size": 96, "num_hidden_layers": 1}
    return from_scratch(wide, int(torch.randint(1000, ())))[0], dataset


def stage(search, loaded, folder, target, updates=0, calibrate=None, budget="coded", accumulate=1):
    """The student, the assignment and the coded average of its searched sites in a file."""
    teacher, dataset = loaded
    speech = speech_of(teacher).copy()
    loss = Loss(1.0, 1.0, 1.0, speech_of(teacher))
    settings = optimization(updates=updates, interval=5, accumulate=accumulate)
    made = StageSettings("s", loss, settings, search, target, calibrate=calibrate, budget=budget)
    assignment = run_stage(speech, made, RunContext(dataset, CPU, 1, folder, Ledger(), logger=False))
    return speech.model, assignment


def coded_average(model, names, folder):
    save_packed(folder, model)
    with safe_open(folder / WEIGHTS_FILE, framework="numpy") as file:
        names_stored = [name for name in file.keys() if name.endswith(("_coded", "_packed"))]  # noqa: SIM118
        stored = {name.rpartition("_")[0]: file.get_slice(name).get_shape()[0] for name in names_stored}
    sizes = {group[0].name: group[0].weight.numel() for group in tensor_places(model)}
    return 8 * sum(stored[name] for name in names) / sum(sizes[name] for name in names)


@pytest.mark.parametrize("target", [3.0, 4.5])
def test_learned_precisions_fill_the_coded_budget_and_the_file_never_exceeds_it(loaded, tmp_path, monkeypatch, target):
    monkeypatch.setattr(precisions, "RENEWED", 3)
    search = GumbelSearch(candidates=(2, 4, 6, 8), freeze_at=0.5)
    model, assignment = stage(search, loaded, tmp_path / "run", target, updates=10)
    average = coded_average(model, assignment, tmp_path / "packed")
    assert 0.9 * target <= average <= target
    assert (search.costs > 0).all() and (search.costs.diff(dim=1) > 0).all()
    bits = torch.tensor(search.site_candidates())
    assert (search.costs <= search.sizes[:, None] * bits).all()
    assert search.expected_bits() == pytest.approx(target, rel=1e-6)  # the probabilities met the budget in coded bits


@pytest.mark.parametrize("kind", [GumbelSearch, RateSearch])
def test_it_is_measured_at_some_updates_once_however_many_batches_they_have(loaded, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(precisions, "RENEWED", 4)
    name, count, seen = {GumbelSearch: "renew_costs", RateSearch: "measure"}[kind], 10, []
    measure, start = getattr(kind, name), precisions.Precisions.start_step

    def watched(self, step, total):
        seen.append(step)
        start(self, step, total)

    def measured(self, *costs):
        seen.append("measured")
        measure(self, *costs)

    monkeypatch.setattr(precisions.Precisions, "start_step", watched)
    monkeypatch.setattr(kind, name, measured)
    search = GumbelSearch(freeze_at=0.5) if kind is GumbelSearch else RateSearch()
    stage(
        search, loaded, tmp_path / "run", 3.0, count, budget="coded" if kind is GumbelSearch else "bits", accumulate=2
    )
    expected = [] if kind is GumbelSearch else ["measured"]  # before the first update
    for step in range(count):
        again = step in (0, 4, 5) if kind is GumbelSearch else step % 4 == 0  # 5: where precisions are decided
        expected += [step, *["measured"] * again, step]
    assert seen == expected + ["measured"] * (kind is RateSearch)  # in the end


def test_steps_grow_until_the_codes_fit_or_stay_where_none_would():
    layer = nn.Linear(64, 64)
    quantizer = attach(layer, find_sites(layer, "*"), (8,))["weight"]
    places, before = [first_places(layer)["weight"]], quantizer.log_scales.detach().clone()
    weight = places[0].weight
    with pytest.raises(UserError, match="more than the 5 bytes that are left for them, however long their steps"):
        lengthen(places, 5.0)
    assert torch.equal(quantizer.log_scales, before)
    now = coded_bytes(weight, quantizer, 8)
    longer = lengthen(places, 0.6 * now)
    assert coded_bytes(weight, quantizer, 8) <= 0.6 * now
    assert torch.allclose(quantizer.log_scales, before + math.log(longer)) and 1 < longer < 64
    with torch.no_grad():
        quantizer.log_scales.copy_(before + math.log(longer) * 0.9)
    assert coded_bytes(weight, quantizer, 8) > 0.6 * now  # not much longer than they had to be


def test_a_resumed_search_counts_with_the_last_measurements(loaded):
    search = GumbelSearch()
    model, _ = loaded
    sites = [site for site in find_sites(model) if site.searched]
    search.bind(sites, 3.0, 0, "coded")
    costs = torch.randint(1, 1000, (len(sites), 3)).double().cumsum(1)
    search.renew_costs(costs)
    other = GumbelSearch()
    other.bind(sites, 3.0, 0, "coded")
    other.load_state_dict(search.state_dict())
    assert torch.equal(other.costs, costs)
    plain = GumbelSearch()
    plain.bind(sites, 3.0, 0)
    assert "costs" not in plain.state_dict()  # checkpoints of runs without it stay as they were


@pytest.mark.parametrize("gptq", [False, True])
def test_measured_precisions_too_with_gptq_and_before_a_second_stage(loaded, tmp_path, gptq):
    search = WeightError((2, 3, 4, 5, 6, 8))
    model, assignment = stage(search, loaded, tmp_path / "one", 3.0, calibrate=Gptq(3) if gptq else None)
    average = coded_average(model, assignment, tmp_path / "packed")
    assert 0.9 * 3.0 <= average <= 3.0
    _, in_bits = stage(WeightError((2, 3, 4, 5, 6, 8)), loaded, tmp_path / "two", 3.0, budget="bits")
    assert sum(assignment.values()) > sum(in_bits.values())
    if not gptq:
        second, same = stage(FixedSearch(assignment), loaded, tmp_path / "three", 3.0, updates=5)
        assert same == assignment and coded_average(second, same, tmp_path / "second") <= 3.0


def test_costs_are_the_bytes_of_the_stored_codes(loaded, tmp_path):
    search = WeightError((4, 8))
    model, assignment = stage(search, loaded, tmp_path / "run", 5.0)
    for number, site in enumerate(search.sites):
        quantizer = quantizers_of(model)[site.name]
        (place,) = next(group for group in tensor_places(model) if group[0].name == site.name)
        column = search.site_candidates().index(assignment[site.name])
        scale = quantizer.scale(quantizer.bits).detach()
        top = 2 ** (quantizer.bits - 1)
        codes = (place.weight / scale).round().clamp(-top, top - 1).to(torch.int8).numpy()
        columns = np.ascontiguousarray(pack(codes, quantizer.bits).reshape(len(codes), -1).T)
        coded = len(zstandard.ZstdCompressor(level=1).compress(columns.data))
        assert search.costs[number, column] == 8 * min(coded, codes.size * quantizer.bits // 8)
