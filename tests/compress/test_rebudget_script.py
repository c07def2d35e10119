"""From one finished run to other budgets without training, on a random model of a few thousand weights."""

import json
import runpy
import shutil
import sys

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from mpq import pipeline, settings
from mpq.checkpoint.coding import packed_form
from mpq.checkpoint.packed import load_packed, read_folder, save_packed
from mpq.checkpoint.requantize import load_quantized, packed_start
from mpq.compress.rebudget import config, reassign, rebudget
from mpq.conf import CONF, REPOSITORY
from mpq.errors import UserError
from mpq.models import loading
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.sites import find_sites
from mpq.record.search import StageSearch, read_search
from mpq.search.assignment import average_bits, from_json


def composed(*words):
    settings.register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words))


@pytest.fixture(scope="module")
def words(tmp_path_factory, model_folder, speech_folder):
    """The settings of all runs here, which share one root and a model under a stated licence."""
    root = tmp_path_factory.mktemp("records")
    licensed = shutil.copytree(model_folder, tmp_path_factory.mktemp("licensed") / "model")
    (licensed / "README.md").write_text("---\nlicense: mit\n---\n")
    return [
        f"model.path={licensed}", f"data.root={speech_folder}", "data.train=[train]", "data.test=[clean]",
        "trainer.updates=8", "trainer.search_updates=2", "trainer.interval=2", "trainer.audio_seconds=3",
        "trainer.accelerator=cpu", "logger.mode=off", f"root={root}", f"cache={root}/cache",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(words, tmp_path_factory):
    """A finished one-stage run at 3.5 bits: its folder."""
    torch.set_num_threads(1)
    result = pipeline.run(composed(*words, "target_bits=3.5"))
    root = next(word.removeprefix("root=") for word in words if word.startswith("root="))
    return type(tmp_path_factory.getbasetemp())(root) / result.exp / "seed0"


pytestmark = pytest.mark.usefixtures("here")


def stored(folder):
    """Codes, scales and bits by site."""
    _, sites, _, tensors = read_folder(folder)
    tensors = packed_form(sites, tensors)
    return {name: (site.bits, tensors[f"{name}_packed"], tensors[f"{name}_scale"]) for name, site in sites.items()}


def test_the_quantizers_come_back_as_they_were_packed(run, here):
    plain, _ = load_packed(run / "model")
    model, processor = load_quantized(run / "model")
    audio = torch.randn(1, 6_000)
    torch.testing.assert_close(model(audio).logits, plain(audio).logits, rtol=1e-4, atol=1e-5)
    save_packed(here / "again", model, processor)
    before, after = stored(run / "model"), stored(here / "again")
    for name, (bits, codes, scale) in before.items():
        assert after[name][0] == bits and torch.equal(after[name][1], codes), name
        torch.testing.assert_close(after[name][2], scale, rtol=1e-6, atol=0)


def test_the_budget_of_the_run_itself_gives_its_assignment(run):
    assert reassign(read_search(run / "search.json"), 3.5) == from_json(run / "bits.json")


def test_a_higher_score_gets_the_bits():
    """Two sites of one size, the second far more eager for 8 bits: at 5 bits it gets them; float64 by hand."""
    eager = ((0.0, 0.0, 0.0), (0.0, 0.0, 9.0))
    stage = StageSearch("a", "gumbel", (2, 4, 8), 3.0, ("x", "y"), (10, 10), logits=eager, temperature=1.0)
    assert reassign([stage], 5.0) == {"x": 2, "y": 8}
    assert reassign([stage], 8.0) == {"x": 8, "y": 8} and reassign([stage], 2.0) == {"x": 2, "y": 2}
    costs = ((9.0, 1.0, 0.5), (2.0, 1.9, 0.1))
    measured = StageSearch("a", "kl", (2, 4, 8), 3.0, ("x", "y"), (10, 10), sensitivity=costs)
    totals = {(a, b): costs[0][i] + costs[1][j] for i, a in enumerate((2, 4, 8)) for j, b in enumerate((2, 4, 8))}
    best = min((cost, bits) for bits, cost in totals.items() if np.mean(bits) <= 5)[1]
    assert tuple(reassign([measured], 5.0).values()) == best


@pytest.mark.parametrize("target", [2.5, 5.0])
def test_packing_alone_keeps_what_stays_and_rounds_the_teacher_where_it_does_not(run, here, model_folder, target):
    made = rebudget(run, target, evaluate=False, calibrate=False)
    assert made.folder.is_dir() and made.result is None
    plain, processor = load_packed(made.folder)
    searched = [site for site in find_sites(plain) if site.searched]
    before, after = stored(run / "model"), stored(made.folder)
    average = average_bits({site.name: after[site.name][0] for site in searched}, searched)
    assert target - 0.5 < average <= target and average == made.bits.average
    card = (made.folder / "README.md").read_text()
    assert f"seed0 target_bits={target:g} calibrate=false` makes the same model" in card and "license: mit" in card
    teacher, _ = loading.load(str(model_folder))
    changed = {name for name in before if before[name][0] != after[name][0]}
    assert changed and changed <= {site.name for site in searched} and processor is not None
    for name in before.keys() - changed:
        assert torch.equal(before[name][1], after[name][1]), name
    for name in changed:
        weight, rounded = teacher.get_parameter(name), plain.get_parameter(name)
        step = after[name][2]
        inside = (rounded.abs() < (2 ** (after[name][0] - 1) - 1) * step) & (weight.abs() < weight.abs().max() / 2)
        assert ((weight - rounded).abs() <= 0.51 * step)[inside].all(), name


def test_gptq_changes_only_what_was_rounded_anew(run, here):
    rounded = rebudget(run, 2.5, here / "rounded", evaluate=False, calibrate=False)
    fitted = rebudget(run, 2.5, here / "fitted", evaluate=False)
    before, plain, after = stored(run / "model"), stored(rounded.folder), stored(fitted.folder)
    new = {name for name in before if before[name][0] != after[name][0]}
    assert all(after[name][0] == plain[name][0] and torch.equal(after[name][2], plain[name][2]) for name in before)
    moved = {name for name in before if not torch.equal(after[name][1], plain[name][1])}
    assert moved and moved <= new


def test_the_command_leaves_a_record_and_pass_2_goes_on_from_it(run, words, here, monkeypatch, capsys):
    command = ["rebudget.py", f"run={run}", "target_bits=3", "output=copy"]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(REPOSITORY / "scripts" / "rebudget.py"), run_name="__main__")
    out = capsys.readouterr().out
    folder = run.parent.parent / run.parent.name.replace("3p5bit", "rebudget_3bit") / "seed0"
    record = json.loads((folder / "result.json").read_text())
    assert record["recipe"] == "rebudget" and record["bits"]["average"] <= 3 and record["bits"]["target"] == 3
    assert record["significance"]["clean"]["baseline"]["exp"].endswith("fp32_mini_speech")
    assert f"{record['wer']['clean']['wer']:.2f} % on clean" in out and "95 % interval" in out
    assert load_packed(here / "copy")[0].state_dict().keys() == load_packed(folder / "model")[0].state_dict().keys()

    second = ["recipe=pass2", "target_bits=3", f"recipe.stages.pass2.start_from={folder / 'model'}"]
    result = pipeline.run(composed(*words, *second))
    polished = folder.parent.parent / result.exp / "seed0"
    assert "pass2" in result.exp and result.time.stages[0].updates == 2
    assert from_json(polished / "bits.json") == from_json(folder / "bits.json")
    before, after = stored(folder / "model"), stored(polished / "model")
    assert any(not torch.equal(before[name][1], after[name][1]) for name in before)


def test_the_command_reads_the_corpus_where_it_is_told_to(run, monkeypatch):
    asked = []

    def stop(*given):
        asked.append(config(*given))
        raise UserError("far enough")

    monkeypatch.setattr("mpq.compress.rebudget.config", stop)
    for word, cache in (("cache=a/folder", "a/folder"), ("evaluate=false", ".cache")):
        monkeypatch.setattr(sys, "argv", ["rebudget.py", f"run={run}", "target_bits=3", word])
        with pytest.raises(SystemExit):
            runpy.run_path(str(REPOSITORY / "scripts" / "rebudget.py"), run_name="__main__")
        assert asked[-1].cache == cache


def test_what_cannot_be_done_is_one_sentence(run, here, words):
    with pytest.raises(UserError, match=r"run=nowhere must be the folder of a finished run"):
        rebudget(here.__class__("nowhere"), 3.0)
    with pytest.raises(UserError, match=r"target_bits=9.* must be between 2 and 8"):
        rebudget(run, 9.0)
    (here / "taken").mkdir()
    (here / "taken" / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="exists and is not a packed model"):
        rebudget(run, 3.0, here / "taken")
    shutil.copytree(run, here / "x" / "old" / "seed0")
    (here / "x" / "old" / "seed0" / "search.json").unlink()
    with pytest.raises(UserError, match=r"cannot read .*search\.json, a run's record of its search: No such file"):
        rebudget(here / "x" / "old" / "seed0", 3.0)
    for damage in ("a: [", "- 1", "model: {name: x}", "\0"):
        (here / "x" / "old" / "seed0" / "config.yaml").write_text(damage)
        shutil.copy(run / "search.json", here / "x" / "old" / "seed0")
        with pytest.raises(UserError, match=r"config.yaml is damaged: ") as caught:
            rebudget(here / "x" / "old" / "seed0", 3.0)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError, match=r"start_from=None must be one of teacher, .* or the folder of a packed model"):
        pipeline.run(composed(*words, "recipe=pass2", "target_bits=3", "seed=5"))


def test_a_folder_of_another_model_is_refused(run):
    other, _ = loading.load(str(REPOSITORY / "mpq/models/tiny_wav2vec2"))
    with pytest.raises(UserError, match="is not a compressed form of this model"):
        packed_start(run / "model", None, other, "*encoder.layers.*", QuantizerSettings())
