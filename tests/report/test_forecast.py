"""Costs and sizes before a run: operations against the layers' formulas, hours against the arithmetic on the page."""

import subprocess
import sys
from pathlib import Path

import pytest

from mpq.errors import UserError
from mpq.record.shapes import read_shapes, write_shapes
from mpq.report.forecast.costs import Assumptions, count, projection_sheet, updates_of
from mpq.report.forecast.sizes import predict
from mpq.report.tables.formats import to_markdown
from mpq.report.tables.planned import planned

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("wav2vec2_base", "hubert_large")
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)  # of wav2vec 2.0's feature encoder, 512 channels


def wav2vec2_base(samples: int) -> tuple[int, int]:
    """FLOP of a forward pass of wav2vec2-base by hand: the convolutions on the audio, and all that follows."""
    length, channels, convolutions = samples, 1, 0
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        length = (length - kernel) // stride + 1
        convolutions += 2 * length * kernel * channels * 512
        channels = 512
    positional = 2 * (length + 1) * 128 * 768 * 768 // 16  # one frame too many, which is cut off
    linear = 2 * length * (512 * 768 + 12 * (4 * 768 * 768 + 2 * 768 * 3072) + 768 * 32)
    attention = 12 * 2 * 2 * length * length * 768
    return convolutions, positional + linear + attention


def test_the_count_is_that_of_the_layers_formulas():
    found = count("wav2vec2_base")
    convolutions, rest = wav2vec2_base(16 * 16000)
    assert found.forward * 16 == pytest.approx(convolutions + rest, rel=1e-3)
    assert found.parameters == 94_396_320
    # Student and teacher forward; backward two products for each of the forward pass, the convolutions being frozen.
    assert found.update * 16 == pytest.approx(2 * (convolutions + rest) + 2 * rest, rel=1e-3)


def test_hours_follow_from_the_assumptions():
    assumptions = Assumptions(1e14, (0.2, 0.4), gpus=2, price=3.0)
    (block,) = projection_sheet(["wav2vec2_base"], assumptions).blocks
    lines = {row[0]: dict(zip(block.frame.columns, row, strict=True)) for row in block.frame.itertuples(index=False)}
    found = count("wav2vec2_base")
    for name, runs, updates in (("one-stage, one run", 1, 20_000), ("the claims, seed 0", 7, 130_000)):
        flop = updates * 160 * found.update + runs * 21.2 * 3600 * found.forward
        assert lines[name]["Updates"] == updates and lines[name]["Runs"] == runs
        assert lines[name]["GPU-hours"] == pytest.approx((flop / 0.4e14 / 3600, flop / 0.2e14 / 3600))
        assert lines[name]["Price"] == pytest.approx(tuple(3 * hours for hours in lines[name]["GPU-hours"]))
    one = lines["one-stage, one run"]
    assert one["Hours, side by side"] == one["GPU-hours"]  # a run is on one GPU
    whole = lines["every row"]
    assert whole["Hours, side by side"] == pytest.approx(tuple(hours / 2 for hours in whole["GPU-hours"]))
    assert whole["Updates"] == sum(updates_of(row.recipe) for row in planned("compression", "wav2vec2_base"))


def test_what_no_gpu_has_is_refused():
    for low, high in ((0.2, 0.1), (0.5, 1.5), (0.0, 0.5)):
        with pytest.raises(UserError, match=f"utilisation={low:g},{high:g} must be two shares above 0 and at most 1"):
            Assumptions(1.0, (low, high))
    for given, match in (({"peak": 0.0}, "peak=0 must be above 0"), ({"peak": 1.0, "gpus": 0}, "gpus=0 must be above")):
        with pytest.raises(UserError, match=match):
            Assumptions(**given, utilisation=(0.1, 0.2))
    with pytest.raises(UserError, match=r"choose one of .*hubert_large.*wav2vec2_base"):
        count("none")


def test_the_page_shows_what_the_script_prints():
    """The tables of "Reproducing the paper" are those of the command above them, and so is what is said below."""
    text = (ROOT / "experiments" / "REPRODUCING.md").read_text(encoding="utf-8")
    assert "python scripts/costs.py format=markdown\n" in text and "scripts/costs.py peak=19.5`" in text
    table = to_markdown([projection_sheet(MODELS, Assumptions(312e12, (0.15, 0.5)))])
    lines = [line for line in table.splitlines() if line.startswith(("|", "**"))]
    assert len(lines) == 16 and all(f"{line}\n" in text for line in lines)
    for model in MODELS:
        assert f"{160 * count(model).update / 1e12:.1f}" in text
    (_, block) = projection_sheet(MODELS, Assumptions(19.5e12, (0.15, 0.5))).blocks
    assert f"projects {block.cells()[3][4]} GPU-hours for HuBERT-large's claims" in text


def test_the_script_refuses_in_one_line():
    command = [sys.executable, str(ROOT / "scripts" / "costs.py"), "peak=much"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith(
        "error: peak=much must be a number of 0 or more, such as peak=312"
    )
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def base():
    return dict(predict("wav2vec2_base"))


def test_every_planned_system_has_a_size(base):
    assert list(base) == list(dict.fromkeys(row.exp for row in planned("compression", "wav2vec2_base")))
    assert all(found.size.parameters == 94_396_320 for found in base.values())


def test_the_ratios(base):
    """Searched weights at the target, 9,339,552 others less their 3,744 biases at 8 bits, what is left at 32."""
    for exp, found in base.items():
        if "_fp32" in exp:  # either baseline
            continue
        ideal = 84_934_656 * found.bits.average + (9_339_552 - 3_744) * 8 + (122_112 + 3_744) * 32
        assert found.size.ideal_bits == ideal
        assert found.bits.target == found.bits.average
        assert found.size.file_ratio == pytest.approx(found.size.ideal_ratio, rel=0.02)
    assert base["wav2vec2_base_3p5bit"].size.ideal_ratio == pytest.approx(8.034, abs=5e-4)
    assert base["wav2vec2_base_3p5bit_a8_dynamic"].bits.activations == 8
    full = base["wav2vec2_base_fp32"]
    assert (full.bits.target, full.size.ideal_ratio) == (None, 1.0) and 0.999 < full.size.file_ratio < 1


def test_they_are_kept_and_read_back(base, tmp_path):
    write_shapes(tmp_path / "sizes.json", base)
    assert read_shapes(tmp_path / "sizes.json") == base
