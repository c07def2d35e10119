"""Every budget from one shared run, on a random model of a few thousand weights."""

import copy
import json
import re
import runpy
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from tiny_run import composed, words

from mpq import pipeline
from mpq.checkpoint.packed import load_packed, read_folder
from mpq.checkpoint.supernet import supernet_start
from mpq.compress.curve import curve, report, trained_alone
from mpq.compress.rebudget import config, rebudget
from mpq.conf import REPOSITORY
from mpq.errors import UserError
from mpq.models import loading
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.sites import find_sites, quantizers_of
from mpq.record.run_folder import RunFolder
from mpq.report.figures import budgets
from mpq.search.assignment import average_bits, from_json

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def run(tmp_path_factory, model_folder, speech_folder):
    """A finished shared run at 3.5 bits: its folder."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("records")
    own = ["recipe=one_stage_shared", "target_bits=3.5", "logger.mode=off", "trainer.updates=4"]
    result = pipeline.run(composed(*words(root, model_folder, speech_folder, *own)))
    return RunFolder.of(root, result)


def packed(folder):
    _, _, _, tensors = read_folder(folder)
    return tensors


def test_at_its_own_budget_it_is_the_run_s_model_byte_for_byte(run):
    made = rebudget(run.path, 3.5, evaluate=False)
    before, after = packed(run.model), packed(made.folder)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert made.bits.average == run.read().bits.average


def test_at_another_budget_each_site_has_the_trained_weights_and_scales_of_its_precision(run, model_folder):
    sites = [site for site in find_sites(loading.load(str(model_folder))[0]) if site.searched]
    made = rebudget(run.path, 5.0, evaluate=False)
    chosen = {name: site.bits for name, site in read_folder(made.folder)[1].items()}
    assert 4.5 < average_bits({site.name: chosen[site.name] for site in sites}, sites) <= 5
    plain, _ = load_packed(made.folder)
    for bits in (2, 4, 8):  # the model at one precision everywhere has, where that is chosen, the same weights
        teacher = loading.load(str(model_folder))[0]
        given = {site.name: bits for site in sites}
        model, _ = supernet_start(run.supernet, given, teacher, "*encoder.layers.*", QuantizerSettings())
        for site in sites:
            if chosen[site.name] == bits:
                weight = model.get_submodule(site.name.rpartition(".")[0]).weight
                torch.testing.assert_close(plain.get_parameter(site.name), weight, rtol=0, atol=0)
        assert {quantizers_of(model)[site.name].bits for site in sites} == {bits}


def test_the_command_makes_every_budget_and_shows_them(run, here, monkeypatch, capsys):
    words = ["rebudget.py", f"run={run.path}", "target_bits=2.5,6", "updates=2", f"cache={run.root}/cache"]
    monkeypatch.setattr(sys, "argv", words)

    def printed():
        runpy.run_path(str(REPOSITORY / "scripts" / "rebudget.py"), run_name="__main__")
        out = capsys.readouterr().out
        return out, [line for line in out.splitlines() if line.startswith("| ")]

    out, rows = printed()
    for bits in ("2p5bit", "6bit"):
        name = run.path.parent.name.replace("one_stage_shared_3p5bit", f"rebudget_shared_2updates_{bits}")
        folder = RunFolder(run.root, name, 0)
        result = folder.read()
        assert result.bits.average <= result.bits.target and from_json(folder.bits)
        assert [stage.updates for stage in result.time.stages] == [2]
        assert f"| {result.wer['clean'].wer:.2f} |" in out and str(folder.model) in out
    read, trained = packed(rebudget(run.path, 6, evaluate=False).folder), packed(folder.model)
    assert any(not torch.equal(read[key], trained[key]) for key in read if key in trained)
    assert len(rows) == 2 + 2 and "lossless" in out
    assert len({row.count(" | ") for row in rows}) == 1  # as many columns everywhere, or it is no table
    assert all((run.path / f"budgets.{ending}").stat().st_size > 1000 for ending in ("png", "svg"))
    # Of 6 bits alone there is a record now: the run at 3.5 bits under another name.
    assert all(row.endswith("| - |") for row in rows[2:])
    alone = run.path.parent.name.replace("one_stage_shared_3p5bit", "6bit")
    other = RunFolder.at(shutil.copytree(run.path, run.root / alone / "seed0"))
    record = json.loads(other.result.read_text())
    counts = record["wer"]["clean"]["units"]["counts"]
    counts[next(iter(counts))][0] += 7  # random models can make the same errors
    other.result.write_text(json.dumps(record | {"exp": alone}))
    errors = sum(count for count, _ in counts.values())
    apart = 100 * (result.wer["clean"].errors - errors) / result.wer["clean"].words
    rows = printed()[1]
    assert rows[2].endswith("| - |") and re.search(rf"\| \{apart:+.2f}[^|]* \|$", rows[3]), rows[3]


def test_what_cannot_be_done_is_one_sentence(run, here, monkeypatch, capsys, model_folder):
    there = RunFolder.at(shutil.copytree(run.path, here / "x" / run.path.parent.name / "seed0"))
    with there.supernet.open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"abc")
    with pytest.raises(UserError, match=r"supernet\.safetensors can't be read or is damaged .its checksum differs"):
        rebudget(there.path, 3.0, evaluate=False)
    there.supernet.unlink()
    with pytest.raises(UserError, match=r"supernet\.safetensors is missing"):
        rebudget(there.path, 3.0, evaluate=False)
    with pytest.raises(UserError, match="has no 3 bits for"):
        teacher = loading.load(str(model_folder))[0]
        given = {site.name: 3 for site in find_sites(teacher) if site.searched}
        supernet_start(run.supernet, given, teacher, "*encoder.layers.*", QuantizerSettings())
    other, _ = loading.load(str(REPOSITORY / "mpq/models/tiny_wav2vec2"))
    with pytest.raises(UserError, match="holds the weights of another model"):
        given = {site.name: 4 for site in find_sites(other) if site.searched}
        supernet_start(run.supernet, given, other, "*encoder.layers.*", QuantizerSettings())
    monkeypatch.setattr(sys, "argv", ["rebudget.py", f"run={run.path}", "target_bits=2.5,6", "output=one"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(REPOSITORY / "scripts" / "rebudget.py"), run_name="__main__")
    assert "output=one takes one model" in capsys.readouterr().err


def test_two_shared_runs_of_one_model_have_budgets_of_their_own(run, here):
    there = RunFolder.at(shutil.copytree(run.path, here / "x" / run.path.parent.name / "seed0"))
    settled = there.path / "config.yaml"
    settled.write_text(settled.read_text().replace("infix: one_stage_shared", "infix: one_stage_shared_again"))
    settled.write_text(settled.read_text().replace("budget: bits", "budget: coded"))
    named = run.path.parent.name.replace
    alone = replace(there.read(), exp=named("one_stage_shared_3p5bit", "2p5bit"))
    RunFolder.of(here / "x", alone).write(alone)
    for updates, name in ((0, "again"), (2, "again_2updates")):
        made = config(there.path, 2.5, True, {}, updates)
        assert made.exp == named("one_stage_shared_3p5bit", f"rebudget_shared_{name}_2p5bit")
        assert made.budget == "bits"  # what the logits are for, and what target_bits then counts
        assert trained_alone(replace(there.read(), exp=made.exp), here / "x") == alone
    for name in ("1bit", "1bit_2updates"):  # a run of other candidates, named by the smallest
        other = replace(there.read(), exp=named("one_stage_shared_3p5bit", f"rebudget_shared_{name}_2p5bit"))
        assert trained_alone(other, here / "x") == alone


def test_seeds_of_one_run_share_a_table_and_a_picture(run):
    made = rebudget(run.path, 4)
    more = copy.deepcopy(made.result)
    for name, (errors, spoken) in more.wer["clean"].units.counts.items():
        more.wer["clean"].units.counts[name] = (errors + 3, spoken)
        more.significance["clean"].change[name] += 3
    counts = more.wer["clean"].units.counts.values()
    errors, spoken = sum(wrong for wrong, _ in counts), sum(said for _, said in counts)
    second = replace(more.wer["clean"], errors=errors, wer=100 * errors / spoken)
    more = replace(more, seed=1, wer=more.wer | {"clean": second}, size=replace(more.size, file_bytes=10**6))
    group = [made, replace(made, size=more.size, result=more)]
    row = report([group], []).splitlines()[2].split(" | ")
    assert float(row[3]) == pytest.approx((made.size.file_bytes + 10**6) / 2e6, abs=5e-4)
    assert float(row[5]) == pytest.approx((made.result.wer["clean"].wer + second.wer) / 2, abs=5e-3)
    changes = [sum(one.significance["clean"].change.values()) for one in (made.result, more)]
    assert float(row[-3].split()[0]) == pytest.approx(100 * sum(changes) / (2 * spoken), abs=5e-3)
    (axes,) = budgets.draw([[one.result for one in group]]).axes
    assert axes.lines[0].get_ydata()[0] == pytest.approx(50 * (made.result.wer["clean"].errors + errors) / spoken)
    assert "seeds 0, 1" in axes.get_title()
    for runs in ([run.path, run.path.with_name("other") / "seed0"], [run.path, run.path]):
        with pytest.raises(UserError, match="must be seeds of one experiment"):
            curve(runs, [3.0], [0], False, False)
