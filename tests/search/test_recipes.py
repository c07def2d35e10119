"""The recipes of conf/recipe, run on a tiny random model and random audio, also when killed and resumed."""

import json
import random

import pytest
import torch
from experiment import Experiment, kill_at, searched
from safetensors.torch import load_file

from mpq.checkpoint.packed import save_packed
from mpq.checkpoint.size import file_bytes
from mpq.errors import UserError
from mpq.quant.sites import quantizers_of
from mpq.record.search import read_search
from mpq.search.assignment import average_bits, from_json
from mpq.search.kl import KLSensitivity
from mpq.train.loss import Posteriors


@pytest.fixture
def experiment(tmp_path):
    return Experiment(tmp_path)


@pytest.mark.parametrize(
    ("recipe", "updates"),
    [
        ("two_stage_gumbel", {"precision": 3, "estimate": 4}),
        ("two_stage_kl", {"precision": 0, "estimate": 4}),
        ("two_stage_hessian", {"precision": 0, "estimate": 4}),
        ("one_stage_pass2", {"one_stage": 4, "pass2": 3}),
    ],
)
def test_recipes_end_to_end(experiment, recipe, updates):
    model, assignment, ledger = experiment.run("work", f"recipe={recipe}", "target_bits=3.5")
    stages = {stage.name: stage for stage in ledger.time().stages}
    assert {name: stage.updates for name, stage in stages.items()} == updates
    assert all(stage.audio_seconds > 0 and stage.seconds > 0 for stage in stages.values())
    quantizers = quantizers_of(model)
    for name in updates:  # every stage has the precisions that the first one found
        assert from_json(experiment.folder / "work" / name / "bits.json") == assignment
    assert {site.name: quantizers[site.name].bits for site in searched(model)} == assignment
    assert 3.0 < average_bits(assignment, searched(model)) <= 3.5
    assert len(set(assignment.values())) > 1
    for site in searched(model):
        path, _ = site.name.rsplit(".", 1)
        trained = model.get_submodule(path).parametrizations.weight.original
        assert not torch.equal(trained, experiment.teacher.get_parameter(site.name)), site.name


@pytest.mark.parametrize(
    ("recipe", "stage", "overrides"),
    [
        ("two_stage_kl", 1, []),  # the first stage that trains
        ("two_stage_gumbel", 2, []),
        ("two_stage_kl", 1, ["recipe.stages.precision.updates=4"]),
        ("size_trained", 1, ["target_megabytes=0.017"]),
        ("size_norms", 1, ["target_megabytes=0.017", "trainer.norm_updates=4"]),
    ],
    ids=["kl, in stage 2", "gumbel, in stage 2", "kl with updates, in stage 1", "for a size, in stage 2", "norms"],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(experiment, monkeypatch, recipe, stage, overrides):
    arguments = [f"recipe={recipe}", *overrides]
    model, assignment, ledger = experiment.run("whole", *arguments)
    with monkeypatch.context() as patch:
        kill_at(patch, stage, update=3)
        with pytest.raises(RuntimeError, match="killed"):
            experiment.run("killed", *arguments)
    killed = {s["name"]: s for s in json.loads((experiment.folder / "killed" / "ledger.json").read_text())["stages"]}
    with monkeypatch.context() as patch:
        patch.setattr(KLSensitivity, "_measure", lambda self, calibration: pytest.fail("measured again"))
        resumed, again, after = experiment.run("killed", *arguments)
    assert again == assignment
    want = model.state_dict()
    assert all(torch.equal(value, want[name]) for name, value in resumed.state_dict().items())
    for entry, whole in zip(after.time().stages, ledger.time().stages, strict=True):
        assert (entry.updates, entry.audio_seconds) == (whole.updates, pytest.approx(whole.audio_seconds))
        assert entry.resumed == (not killed[entry.name]["finished"] if entry.name in killed else 0)
        assert entry.seconds >= killed.get(entry.name, {"seconds": 0})["seconds"]


def test_a_model_made_for_a_size_is_trained_within_it(tmp_path):
    """At a learning rate that moves codes in four updates; of fewer weights the bytes would jump."""
    experiment = Experiment(tmp_path, width=64)
    words = ["recipe=size_trained", "trainer.learning_rate=0.05", "trainer.scale_learning_rate=0.02"]
    with pytest.raises(UserError, match="the smallest and the largest") as told:
        experiment.run("none", *words, "target_megabytes=0.001")
    low, high = (float(word.strip(",")) for word in str(told.value).split() if word[0].isdigit())
    size = 0.6 * low + 0.4 * high
    model, assignment, ledger = experiment.run("work", *words, f"target_megabytes={size}")
    assert {stage.name: stage.updates for stage in ledger.time().stages} == {"round": 0, "train": 4}
    assert {site.name: quantizers_of(model)[site.name].bits for site in searched(model)} == assignment
    save_packed(experiment.folder / "packed", model)
    assert 0.97 * size <= file_bytes(experiment.folder / "packed") / 1e6 <= size
    (learned,) = read_search(experiment.folder / "work" / "train" / "search.json")
    assert learned.rates is not None and len(learned.sites) > len(assignment)  # steps of all weights
    average = sum(r * n for r, n in zip(learned.rates, learned.parameters, strict=True)) / sum(learned.parameters)
    assert learned.target - 0.01 < average <= learned.target


def test_norms_and_biases_are_trained_and_codes_stay(experiment):
    words = ["target_megabytes=0.017", "trainer.norm_updates=4", "trainer.vector_learning_rate=0.0"]  # not the stage's
    rounded, assignment, _ = experiment.run("rounded", "recipe=ptq_gptq_size", *words)
    tuned, again, ledger = experiment.run("tuned", "recipe=size_norms", *words)
    assert again == assignment
    assert {stage.name: stage.updates for stage in ledger.time().stages} == {"round": 0, "norms": 4}
    trained, before = dict(tuned.named_parameters()), dict(rounded.named_parameters())
    moved = {name for name, value in trained.items() if not torch.equal(value, before[name])}
    assert moved and all(trained[name].ndim == 1 for name in moved)
    assert {name.rpartition(".")[2] for name in moved} == {"weight", "bias"}  # of norms, and of linear layers
    folders = [experiment.folder / "packed" / name for name in ("rounded", "tuned")]
    for folder, model in zip(folders, (rounded, tuned), strict=True):
        save_packed(folder, model)
    first, second = (load_file(folder / "model.safetensors") for folder in folders)
    assert first.keys() == second.keys()
    assert {name for name in first if not torch.equal(first[name], second[name])} == {
        name.replace(".parametrizations.weight.original", ".weight") for name in moved
    }
    assert file_bytes(folders[0]) == file_bytes(folders[1])


def test_one_run_lands_on_its_target(tmp_path):
    experiment = Experiment(tmp_path, layers=6)
    for target in random.sample([2.5, 3, 3.5, 4, 5], 2):
        print("target:", target)
        model, assignment, _ = experiment.run(str(target), f"target_bits={target}", "trainer.interval=4")
        average = average_bits(assignment, searched(model))
        assert target - 0.1 <= average <= target


def test_other_candidates_shared_decisions_and_cotrained_precisions(experiment):
    own = "recipe.stages.one_stage.search"
    options = [f"{own}.candidates=[1,3,6]", f"{own}.share=group", f"{own}.cotrain=0.5", f"{own}.freeze_at=1.0"]
    _, assignment, _ = experiment.run("work", "target_bits=3", *options)
    assert set(assignment.values()) <= {1, 3, 6}
    for name, bits in assignment.items():
        assert assignment[name.replace("layers.1", "layers.0")] == bits


def test_a_search_after_decided_precisions_is_refused(experiment):
    with pytest.raises(UserError, match=r"recipe\.stages\.pass2 starts from the previous stage"):
        experiment.run(
            "work",
            "recipe=one_stage_pass2",
            "recipe.stages.one_stage.updates=1",
            "recipe.stages.pass2.search._target_=mpq.search.uniform.UniformSearch",
            "~recipe.stages.pass2.search.assignment",
            "target_bits=4",
        )


@pytest.mark.parametrize("recipe", ["two_stage_gumbel", "one_stage"])
def test_a_run_that_finds_the_posteriors_makes_the_same_model(experiment, monkeypatch, recipe):
    arguments = [f"recipe={recipe}", "distill.keep=true", f"cache={experiment.folder / 'cache'}"]
    first, assignment, ledger = experiment.run("first", *arguments)
    (kept,) = (experiment.folder / "cache").iterdir()
    assert {file.stem for file in kept.iterdir()} <= {utterance.id for utterance in experiment.corpus.train}
    monkeypatch.setattr(Posteriors, "_make", lambda *_: pytest.fail("the teacher was asked again"))
    second, again, later = experiment.run("second", *arguments)
    assert again == assignment
    before, after = ([stage.posteriors_found for stage in one.time().stages] for one in (ledger, later))
    assert before[0] == 0 and all(before[1:]) and after == [len(list(kept.iterdir()))] * len(before)
    want = first.state_dict()
    assert all(torch.equal(value, want[name]) for name, value in second.state_dict().items())


def test_the_ledger_keeps_how_many_posteriors_a_killed_stage_had_found(experiment, monkeypatch):
    """The rest of them are its own: a resumed stage has not found what it wrote before it was killed."""
    cache = f"cache={experiment.folder / 'cache'}"
    with monkeypatch.context() as patch:
        kill_at(patch, 1, update=3)
        with pytest.raises(RuntimeError, match="killed"):
            experiment.run("work", "distill.keep=true", cache)
    assert list((experiment.folder / "cache").rglob("*.safetensors"))
    (stage,) = experiment.run("work", "distill.keep=true", cache)[2].time().stages
    assert stage.resumed == 1 and stage.posteriors_found == 0
    (stage,) = experiment.run("other", cache)[2].time().stages
    assert stage.posteriors_found is None  # not kept
    stages = experiment.run("measured", "recipe=two_stage_kl", "distill.keep=true", cache)[2].time().stages
    assert [one.posteriors_found is None for one in stages] == [True, False]  # the first has no updates
