"""One-stage training of a very small model: the budget at every update, and what was learned."""

import copy

import pytest
import torch
from tiny_speech import speech_of
from tiny_stage import CPU, QUANTIZER, assert_equal_states, load, optimization

from mpq.errors import UserError
from mpq.models.speech import SpeechModel
from mpq.quant import compiled
from mpq.quant.sites import attach, find_sites, quantizers_of
from mpq.record.ledger import Ledger
from mpq.search.assignment import average_bits
from mpq.search.fixed import FixedSearch
from mpq.search.gumbel import GumbelSearch
from mpq.search.uniform import UniformSearch
from mpq.train.context import RunContext, StageSettings
from mpq.train.loss import Loss
from mpq.train.machine import Machine
from mpq.train.precisions import Precisions
from mpq.train.stage import run_stage


@pytest.fixture(scope="module")
def loaded(model_folder, speech_folder):
    return load(model_folder, speech_folder)


def stage(name, student, search, loaded, folder, target=3.5, ledger=None, machine=CPU, **changes):
    teacher, dataset = loaded
    loss = Loss(1.0, 1.0, 1.0, speech_of(teacher))
    settings = optimization(**{"updates": 20, "interval": 10, **changes})
    return run_stage(
        speech_of(student),
        StageSettings(name, loss, settings, search, target, quantizer=QUANTIZER),
        RunContext(dataset, machine, 1, folder, ledger or Ledger(), logger=False),
    )


@pytest.fixture
def watched(monkeypatch):
    """What every update of a stage ran with: (expected average bits, bits of each searched site)."""
    updates = []
    start_step = Precisions.start_step

    def watch(self, step, total):
        start_step(self, step, total)
        expected = sizes = 0.0
        for site in self.search.sites:
            quantizer = self._searched[site.name]
            if quantizer.bits is None:
                average = sum(p * b for p, b in zip(quantizer.lambdas.tolist(), quantizer.candidates, strict=True))
            else:
                average = quantizer.bits
            expected, sizes = expected + site.numel * average, sizes + site.numel
        updates.append((expected / sizes, [self._searched[site.name].bits for site in self.search.sites]))

    monkeypatch.setattr(Precisions, "start_step", watch)
    return updates


@pytest.mark.parametrize("target", [2.5, 3.5, 6.0])
def test_the_budget_is_held_at_every_update_and_met_in_the_end(loaded, tmp_path, watched, target):
    student = copy.deepcopy(loaded[0])
    search = GumbelSearch(freeze_at=0.6)
    assignment = stage("one_stage", student, search, loaded, tmp_path, target)
    assert len(watched) == 20
    for expected, bits in watched[:12]:
        assert expected == pytest.approx(target, abs=1e-5) and set(bits) == {None}
    assert {tuple(bits) for _, bits in watched[12:]} == {tuple(assignment.values())}
    average = average_bits(assignment, [site for site in find_sites(student) if site.searched])
    assert target - 0.1 < average <= target
    assert {name: q.bits for name, q in quantizers_of(student).items() if name in assignment} == assignment


def test_weights_scales_and_logits_are_learned_together(loaded, tmp_path):
    from mpq.quant.quantizer import WeightQuantizer

    student = copy.deepcopy(loaded[0])
    search = GumbelSearch()
    stage("one_stage", student, search, loaded, tmp_path)
    assert (search.logits != 0).any(dim=1).all()
    before = dict(loaded[0].named_parameters())
    for site in find_sites(student):
        owner = student.get_submodule(site.name.rpartition(".")[0])
        weight, scales = owner.parametrizations.weight.original, owner.parametrizations.weight[0].log_scales
        frozen = "feature_extractor" in site.name
        if site.name in before:  # the positional convolution had its weight norm folded
            assert torch.equal(weight, before[site.name]) == frozen, site.name
            fresh = WeightQuantizer(before[site.name], owner.parametrizations.weight[0].candidates, QUANTIZER)
            moved = fresh.log_scales != scales
            assert not moved.any() if frozen else moved.flatten(1).any(dim=1).all(), site.name
        assert weight.isfinite().all() and scales.isfinite().all()


def test_compiled_quantizers_train_the_same_model_but_for_rounding(loaded, tmp_path, monkeypatch):
    """What is compiled, run as it is: that compiled it computes the same is tested with the quantizers."""
    calls = []
    monkeypatch.setattr(compiled, "_run", lambda function, *given: calls.append(function) or function(*given))
    trained = []
    for choice in (False, True):
        student = copy.deepcopy(loaded[0])
        machine = Machine("cpu", compile=choice)
        stage("one_stage", student, GumbelSearch(), loaded, tmp_path / str(choice), machine=machine, updates=4)
        trained.append(student.state_dict())
        assert {function.__name__ for function in calls} == ({"_forward", "_backward"} if choice else set())
    compiled.choose("auto")
    plain, found = trained
    start, compared = loaded[0].state_dict(), 0
    for name, value in plain.items():
        before = start.get(name.replace(".parametrizations.weight.original", ".weight"))
        if before is not None and name.endswith(".original") and not torch.equal(value, before):
            # AdamW's first updates have one size: where a gradient is nearly zero, rounding decides its sign.
            assert (found[name] - value).norm() < 0.1 * (value - before).norm(), name
            compared += 1
    assert compared > 10


def test_uniform_precision_stands_from_the_first_update(loaded, tmp_path, watched):
    assignment = stage("uniform", copy.deepcopy(loaded[0]), UniformSearch(), loaded, tmp_path, target=4, updates=3)
    assert set(assignment.values()) == {4}
    assert [set(bits) for _, bits in watched] == [{4}] * 3


def test_a_second_stage_starts_from_the_teacher_although_the_first_was_distilled_from_it(loaded, tmp_path):
    teacher = loaded[0]
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    first = stage("search", copy.deepcopy(teacher), GumbelSearch(), loaded, tmp_path, updates=4)
    student = copy.deepcopy(teacher)
    assert stage("train", student, FixedSearch(first), loaded, tmp_path, updates=4) == first
    assert_equal_states(dict(teacher.state_dict()), before)
    learned = [name for name, p in student.named_parameters() if p.requires_grad and name.endswith("original")]
    assert learned


def test_a_stage_without_updates_only_quantizes(loaded, tmp_path):
    student = copy.deepcopy(loaded[0])
    ledger = Ledger()
    assignment = stage("ptq", student, UniformSearch(), loaded, tmp_path, target=4, ledger=ledger, updates=0)
    assert set(assignment.values()) == {4}
    (entry,) = ledger.time().stages
    assert (entry.name, entry.updates, entry.audio_seconds) == ("ptq", 0, 0.0)


def test_the_ledger_counts_updates_and_the_audio_that_was_heard(loaded, tmp_path):
    ledger = Ledger()
    stage("uniform", copy.deepcopy(loaded[0]), UniformSearch(), loaded, tmp_path, target=4, ledger=ledger, updates=5)
    (entry,) = ledger.time().stages
    assert entry.updates == 5 and entry.devices == 1 and entry.seconds > 0
    seconds = sorted(utterance.seconds for utterance in loaded[1].utterances)
    assert 5 * seconds[0] <= entry.audio_seconds <= 5 * 3.0


def test_starting_scales_are_found_on_the_accelerator(loaded, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(SpeechModel, "to_accelerator", lambda self, accelerator: calls.append(accelerator))
    monkeypatch.setattr("mpq.train.stage.attach", lambda *given: calls.append("scales") or attach(*given))
    stage("uniform", copy.deepcopy(loaded[0]), UniformSearch(), loaded, tmp_path, 4, updates=1)
    assert calls == ["cpu", "scales"]


def test_an_impossible_target_is_refused(loaded, tmp_path):
    with pytest.raises(UserError, match="between 2 and 8"):
        stage("one_stage", copy.deepcopy(loaded[0]), GumbelSearch(), loaded, tmp_path, target=1.5)
