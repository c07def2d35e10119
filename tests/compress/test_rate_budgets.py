"""Every budget from one run with learned steps, on a random model of a few thousand weights."""

import random
from dataclasses import replace

import pytest
import torch
from tiny_run import composed, words

from mpq import pipeline, stages
from mpq.checkpoint.packed import read_folder
from mpq.checkpoint.supernet import supernet_start
from mpq.compress.curve import trained_alone
from mpq.compress.rebudget import config, rebudget
from mpq.errors import UserError
from mpq.models import loading
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.sites import quantizers_of
from mpq.record.run_folder import RunFolder
from mpq.record.search import read_search

pytestmark = pytest.mark.usefixtures("here")
INFIX = "one_stage_every_rate_again"


@pytest.fixture(scope="module")
def run(tmp_path_factory, model_folder, speech_folder):
    """A finished run from 2.2 to 3.5 coded bits: its folder."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("records")
    own = [
        "recipe=one_stage_every_rate",
        "target_bits=3.5",
        f"recipe.infix={INFIX}",
        "logger.mode=off",
        "trainer.updates=4",
    ]
    return RunFolder.of(root, pipeline.run(composed(*words(root, model_folder, speech_folder, *own))))


def weights_and_steps(folder, model_folder):
    """The searched float weights that a run kept, and the logarithms of their steps."""
    teacher = loading.load(str(model_folder))[0]
    searched = "*encoder.layers.*"
    model, sites = supernet_start(folder.supernet, None, teacher, searched, QuantizerSettings())
    found = quantizers_of(model)
    return {
        name: (model.get_submodule(name.rpartition(".")[0]).parametrizations.weight.original, found[name].log_scales)
        for name in sites
    }


def test_one_factor_on_all_steps_makes_another_budget_of_the_same_weights(run, model_folder):
    target = random.uniform(1.8, 3.0)
    made = rebudget(run.path, target)
    rates = read_search(RunFolder.at(made.folder.parent).search)[-1]
    average = sum(r * n for r, n in zip(rates.rates, rates.parameters, strict=True)) / sum(rates.parameters)
    assert target - 0.15 < average <= target  # codes of so small weights are often only packed: their sizes jump
    _, _, _, stored = read_folder(made.folder)
    factors = []
    for name, (_, steps) in weights_and_steps(run, model_folder).items():
        scale = stored[f"{name}_scale"].flatten()
        factors.append(scale.log() - steps.detach().flatten())
    longer = torch.cat(factors)
    assert longer.min() > 0 and longer.max() - longer.min() < 1e-4


def test_its_own_budget_again_is_the_same_model(run):
    made = rebudget(run.path, 3.5, evaluate=False)
    own, again = (read_folder(folder)[3] for folder in (run.model, made.folder))
    assert own.keys() == again.keys()
    assert all(torch.allclose(own[name].float(), again[name].float(), atol=1e-3) for name in own if "_scale" in name)


def test_updates_train_the_weights_at_the_new_budget_and_names_tell_all(run, model_folder, tmp_path):
    made = rebudget(run.path, 2.5, updates=2)
    named = run.path.parent.name.replace
    assert made.result.exp == named(f"{INFIX}_3p5bit", "rebudget_every_rate_again_2updates_2p5bit")
    assert [stage.updates for stage in made.result.time.stages] == [2]
    assert not RunFolder.at(made.folder.parent).supernet.exists()  # the run has the weights of all budgets
    alone = replace(made.result, exp=named(f"{INFIX}_3p5bit", "one_stage_rate_again_2p5bit"))
    assert trained_alone(made.result, tmp_path) is None
    RunFolder.of(tmp_path, alone).write(alone)
    assert trained_alone(made.result, tmp_path) == alone
    run.supernet.rename(run.supernet.with_suffix(".away"))
    with pytest.raises(UserError, match=r"the weights that all budgets are read from: run .* again"):
        config(run.path, 2.5, True, {})
    run.supernet.with_suffix(".away").rename(run.supernet)
    settled = run.read_config().recipe
    assert stages.budgets_of(settled) == "every_rate"
    settled.stages.one_stage.search.lowest = None  # the weights of one rate suit no other
    assert stages.budgets_of(settled) is None
    assert stages.budgets_of(RunFolder.at(made.folder.parent).read_config().recipe) is None
    with pytest.raises(UserError, match="target_bits=9"):
        rebudget(run.path, 9, evaluate=False)
