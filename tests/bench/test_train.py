"""Training steps, ours beside whichever peers are installed."""

import importlib.util

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_speech import write_speech

from mpq.bench import train, train_steps
from mpq.bench.train_steps import Workload
from mpq.errors import UserError
from mpq.quant.fake_quantize import fake_quantize
from mpq.quant.grid import grid
from mpq.quant.quantizer import WeightQuantizer
from mpq.quant.sites import quantizers_of
from mpq.train.loss import Posteriors

PEERS = {"torchao_qat_4bit": "torchao", "brevitas_4bit": "brevitas"}


def workload():
    return Workload("any", batch=2, seconds=0.5, device="cpu", bf16=False)


def test_every_system_is_measured_or_says_why_not(monkeypatch):
    monkeypatch.setattr(train, "peak_bytes", lambda name, options: 1000)  # a process each would take a minute
    rows = train.run(train.Options(batch=2, seconds=0.5, rounds=2, device="cpu", threads=1, repeats=2, batches=0))
    assert {row["system"] for row in rows} == set(train_steps.SYSTEMS)
    for row in rows:
        if "problem" in row:
            assert importlib.util.find_spec(PEERS[row["system"]]) is None and "not installed" in row["problem"]
        else:
            assert row["ratio"]["low"] > 0 and row["peak_ratio"] == 1


def test_peak_memory_is_that_of_a_process_of_its_own():
    options = train.Options(batch=1, seconds=0.3, device="cpu", bf16="off", threads=1)
    assert 2**26 < train.peak_bytes("full_precision", options) < 2**32  # of the shipped tiny model


@pytest.mark.parametrize(
    "name",
    ["uniform_4bit", "supernet", "one_stage_shared_update", "one_stage_update_kept_targets", "multi_branch_supernet"],
)
def test_a_step_trains_weights_and_quantizers(name):
    work = workload()
    step = train_steps.SYSTEMS[name](work)
    before = {key: value.detach().clone() for key, value in work.model.named_parameters()}
    step()
    changed = {key for key, value in work.model.named_parameters() if not torch.equal(before[key], value)}
    count = len(work.linears()) if name == "multi_branch_supernet" else _trained(work.model)
    assert sum("scales" in key for key in changed) >= count
    assert any("feed_forward" in key and "scales" not in key for key in changed)


def test_kept_targets_are_made_in_the_first_update_and_read_in_the_next(monkeypatch):
    work, make, made = workload(), Posteriors._make, []
    monkeypatch.setattr(Posteriors, "_make", lambda self, *which: made.append(which) or make(self, *which))
    step = train_steps.SYSTEMS["one_stage_update_kept_targets"](work)
    for _ in range(3):
        step()
        assert len(made) == len(work.batch.ids)


def _trained(model):
    """The quantizers of weights that are not frozen."""
    return sum(quantizer.log_scales.requires_grad for quantizer in quantizers_of(model).values())


@pytest.mark.parametrize("workers", [0, 1])
def test_the_share_of_time_that_waits_for_data(tmp_path, monkeypatch, workers):
    write_speech(tmp_path, {"train": 4}, np.random.default_rng())
    heard = []
    monkeypatch.setitem(train_steps.SYSTEMS, "one_stage_update", lambda work: lambda batch: heard.append(batch.ids))
    share = train.waiting_share(workload(), 6, workers, train.utterances_of(str(tmp_path), "train", "unused"))
    assert 0.5 < share <= 1  # the update takes no time
    assert len(heard) == 7 and {len(ids) for ids in heard} <= {1, 2}


def test_only_the_layers_that_peers_quantize_too_are_quantized():
    work = workload()
    train_steps.uniform(work)
    assert set(quantizers_of(work.model)) == {f"{name}.weight" for name in work.linears()}
    assert all(isinstance(q, WeightQuantizer) and q.bits == 4 for q in quantizers_of(work.model).values())


def test_the_branches_sum_to_the_mixture(monkeypatch):
    shares = torch.rand(3).softmax(0)
    monkeypatch.setattr(F, "gumbel_softmax", lambda logits, tau: shares)
    linear, inputs = torch.nn.Linear(7, 5), torch.randn(3, 7)
    branches = train_steps._Branches(linear)
    levels = zip(train_steps.CANDIDATES, branches.scales, shares, strict=True)
    mixed = sum(share * fake_quantize(linear.weight, scale, grid(bits, centred=False)) for bits, scale, share in levels)
    torch.testing.assert_close(branches(inputs), F.linear(inputs, mixed, linear.bias))


@pytest.mark.parametrize(
    "options", [{"device": "tpu"}, {"bf16": "maybe"}, {"compile": "maybe"}, {"systems": ("no_such",)}]
)
def test_a_wrong_choice_is_refused(options):
    with pytest.raises(UserError):
        train.run(train.Options(**options))
