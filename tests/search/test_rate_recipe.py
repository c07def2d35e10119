"""The recipe with learned steps, from training to the packed file and its record."""

import pytest
import torch
from experiment import Experiment, kill_at, searched
from transformers import AutoModelForCTC

from mpq.checkpoint.coding import stored_bytes
from mpq.checkpoint.packed import load_packed, save_packed
from mpq.checkpoint.size import bits_and_size
from mpq.compress.rebudget import reassign
from mpq.errors import UserError
from mpq.quant.fake_quantize import quantize
from mpq.quant.sites import detach, quantizers_of
from mpq.record.search import read_search
from mpq.search.rate import RateSearch
from mpq.train.module import TrainingModule

TARGET = 2.5


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The experiment, and the model and assignment of a whole run, in which every update's average was noted."""
    experiment, held, hold = Experiment(tmp_path_factory.mktemp("rate")), [], RateSearch.hold
    moved, shifted = [], TrainingModule.optimizer_step

    def step(self, *arguments, **more):
        shifted(self, *arguments, **more)
        moved.append(bool(self.search.shifts.any()))

    def noting(self, *rate):
        hold(self, *rate)
        sizes = [site.numel for site in self.sites]
        held.append(sum(rate * size for rate, size in zip(self.rates(), sizes, strict=True)) / sum(sizes))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RateSearch, "hold", noting)
        patch.setattr(TrainingModule, "optimizer_step", step)
        model, assignment, _ = experiment.run("whole", "recipe=one_stage_rate", f"target_bits={TARGET}")
    assert moved == [True] * 4
    return experiment, model, assignment, held


def test_every_update_has_the_budget_and_learns_steps_and_weights(made):
    experiment, model, assignment, held = made
    assert len(held) == 2 + 4  # when attached, without and with what the coder takes; before each update
    assert all(TARGET - 0.01 < average <= TARGET for average in held)
    assert max(assignment.values()) < 8
    assert {site.name: quantizers_of(model)[site.name].bits for site in searched(model)} == assignment
    (stage,) = read_search(experiment.folder / "whole" / "one_stage" / "search.json")
    assert (stage.method, stage.target, stage.candidates) == ("rate", TARGET, (8,))
    for site, rate, zeros in zip(searched(model), stage.rates, stage.zeros, strict=True):
        module = model.get_submodule(site.name.rpartition(".")[0])
        weight, quantizer = module.parametrizations.weight.original, quantizers_of(model)[site.name]
        codes = quantize(weight.detach(), quantizer.scale(quantizer.bits), quantizer.grid(quantizer.bits))
        assert rate == pytest.approx(8 * stored_bytes(codes.numpy(), quantizer.bits) / codes.numel())
        assert zeros == pytest.approx(float((module.weight == 0).float().mean()))
        assert not torch.equal(weight, experiment.teacher.get_parameter(site.name))
    assert max(stage.rates) - min(stage.rates) > 0.01
    taken = sum(rate * site.numel for rate, site in zip(stage.rates, searched(model), strict=True))
    average = taken / sum(site.numel for site in searched(model))
    assert TARGET - 0.1 < average <= TARGET  # codes of so small weights are often only packed: their sizes jump


def test_the_file_holds_the_model_and_the_record_tells_its_bits(made, tmp_path):
    _, model, assignment, _ = made
    save_packed(tmp_path / "model", model)
    bits, size = bits_and_size(model, "*encoder.layers.*", TARGET, 10_000, tmp_path / "model")
    sizes = {site.name: site.numel for site in searched(model)}
    average = sum(assignment[name] * size for name, size in sizes.items()) / sum(sizes.values())
    assert (bits.target, bits.average) == (TARGET, pytest.approx(average))
    weights = [model.get_submodule(name.rpartition(".")[0]).weight for name in sizes]
    assert bits.zeros == pytest.approx(float(torch.cat([weight.flatten() == 0 for weight in weights]).float().mean()))
    assert bits.coded is None or bits.coded <= bits.average  # few of so small weights are coded; see tests/checkpoint
    assert size.packed_bytes is not None and size.file_bytes <= size.packed_bytes
    plain, _ = load_packed(tmp_path / "model")
    loaded = AutoModelForCTC.from_pretrained(tmp_path / "model")
    for name, weight in zip(sizes, weights, strict=True):
        assert torch.equal(plain.get_parameter(name), weight)
        assert torch.equal(loaded.get_parameter(name), weight)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(made, monkeypatch):
    experiment, model, assignment, _ = made
    arguments = ["recipe=one_stage_rate", f"target_bits={TARGET}"]
    with monkeypatch.context() as patch:
        kill_at(patch, 1, update=3)
        with pytest.raises(RuntimeError, match="killed"):
            experiment.run("killed", *arguments)
    resumed, again, _ = experiment.run("killed", *arguments)
    assert again == assignment
    want = model.state_dict()
    assert all(torch.equal(value, want[name]) for name, value in resumed.state_dict().items())
    finished, once_more, _ = experiment.run("killed", *arguments)  # only its outcome is loaded
    assert once_more == assignment
    detach(finished)


def test_no_other_budget_comes_from_its_record(made):
    stages = read_search(made[0].folder / "whole" / "one_stage" / "search.json")
    with pytest.raises(UserError, match="no other budget can be derived"):
        reassign(stages, 3)
