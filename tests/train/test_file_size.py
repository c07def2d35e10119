"""A model quantized for a size of its file: never above it, and close; the sizes that are possible."""

from itertools import product

import numpy as np
import pytest
import torch
from tiny_speech import ARCHITECTURE
from tiny_whisper import tiny_whisper

from mpq.checkpoint.packed import load_packed, save_packed
from mpq.checkpoint.prediction import overhead_bytes
from mpq.checkpoint.size import file_bytes
from mpq.data.noise import noise_batch
from mpq.errors import SizeError, UserError
from mpq.models.loading import from_scratch, load, speech_model
from mpq.quant.calibration import Calibration
from mpq.quant.gptq import Gptq
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.sites import attach, find_sites, fold_weight_norm, quantizers_of
from mpq.quant.steps import Rounding
from mpq.train.file_size import check_capacity, check_size, choose, fit_to_size


def random_roundings(rng, unit=1):
    rows = []
    for _ in range(4):
        taken = unit * (np.sort(rng.choice(400, 5, replace=False)) + 1)
        errors = np.sort(rng.exponential(size=5))[::-1]
        rows.append([Rounding(0.0, 8, int(t), float(e)) for t, e in zip(taken, errors, strict=True)])
    return rows


def test_the_choice_is_the_best_of_all():
    rng = np.random.default_rng()
    for _ in range(20):
        found, prices = random_roundings(rng), torch.from_numpy(rng.exponential(size=4))
        capacity = int(rng.integers(sum(row[0].taken for row in found), sum(row[-1].taken for row in found) + 1))

        def loss(chosen, prices=prices):
            return sum(price * one.error for price, one in zip(prices.tolist(), chosen, strict=True))

        best = min(loss(each) for each in product(*found) if sum(one.taken for one in each) <= capacity)
        chosen = choose(found, prices, capacity)
        assert sum(one.taken for one in chosen) <= capacity
        assert loss(chosen) == pytest.approx(best, rel=1e-9)


def calibration_of(kind):
    if kind == "whisper":
        speech = speech_model(*tiny_whisper(int(torch.randint(1000, ()))))
        return Calibration(speech, [noise_batch(speech.reader, 0, 2, 0.5)])
    wider = {**ARCHITECTURE, "hidden_size": 32, "intermediate_size": 64}
    speech = speech_model(*from_scratch(wider, int(torch.randint(1000, ()))))
    fold_weight_norm(speech.model)
    return Calibration(speech, [noise_batch(speech.reader, 0, 2, 0.5)])


@pytest.mark.parametrize(
    ("kind", "coding", "fitted"), [("ctc", "zstd", True), ("whisper", "zstd", False), ("ctc", "none", False)]
)
def test_the_file_is_never_larger_and_hardly_smaller(kind, coding, fitted, tmp_path):
    calibration = calibration_of(kind)
    model = calibration.model
    sites = find_sites(model, "*coder.layers.*" if kind == "whisper" else "*encoder.layers.*")
    plain = {site.name: model.get_parameter(site.name).detach().clone() for site in sites}
    with pytest.raises(UserError, match=r"target_megabytes=0.001 must be between [0-9.]+ and [0-9.]+, the smallest"):
        fit_to_size(calibration, sites, 1000, coding, None, 0)
    assert not quantizers_of(model)
    most = overhead_bytes(model, sites) + sum(site.numel for site in sites) * int(torch.randint(40, 60, ())) // 100
    fit_to_size(calibration, sites, most, coding, Gptq(3) if fitted else None, 0)
    save_packed(tmp_path / "packed", model, coding=coding)
    least = 0.995 if coding == "zstd" else 0.99  # uncoded, so small a model has few sizes to choose from
    assert least * most <= file_bytes(tmp_path / "packed") <= most
    steps = {name: float(quantizer.log_scales.exp()) for name, quantizer in quantizers_of(model).items()}
    assert steps.keys() == plain.keys()
    loaded = load_packed(tmp_path / "packed")[0].state_dict()
    errors = {name: (loaded[name] - plain[name]).abs() / steps[name] for name in plain}
    assert all(float(each.median()) <= 0.5001 for each in errors.values()) or fitted
    compensated = [each for each in errors.values() if each.ndim == 2 and float((each > 0.51).float().mean()) > 0.02]
    assert compensated or not fitted


def test_a_size_out_of_reach_is_refused_before_anything_is_measured(model_folder, tmp_path):
    model = load(str(model_folder))[0]
    with pytest.raises(SizeError) as told:
        check_size(model, "", 10)
    low, high = (float(word.strip(",")) for word in str(told.value).split() if word[0].isdigit())
    assert told.value.nearest == low
    with pytest.raises(SizeError) as told:
        check_size(model, "", int((high + 0.001) * 1e6))
    assert told.value.nearest == high
    check_size(model, "", int(low * 1e6))
    check_size(model, "", int(high * 1e6))
    fold_weight_norm(model)
    sites = find_sites(model, "")
    attach(model, sites, [8], QuantizerSettings("per_tensor"))
    save_packed(tmp_path / "packed", model, coding="none")
    assert abs(file_bytes(tmp_path / "packed") / 1e6 - high) <= 0.001


def test_the_sizes_that_a_refusal_names_are_possible():
    found = random_roundings(np.random.default_rng(), unit=1_000)  # bytes: the sentence names thousands
    beside = 1_234_567
    with pytest.raises(UserError) as told:
        check_capacity(found, -beside, 0)
    low, high = (float(word.strip(",")) for word in str(told.value).split() if word[0].isdigit())
    for megabytes in (low, high):
        most = int(megabytes * 1e6)
        check_capacity(found, most - beside, most)
        assert choose(found, torch.ones(4), most - beside)
    with pytest.raises(UserError, match="the smallest and the largest file"):
        check_capacity(found, int((high + 0.001) * 1e6) - beside, 0)
