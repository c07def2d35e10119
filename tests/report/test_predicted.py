"""The sizes of the paper's models, predicted from their configs, against the accounting of METHOD's table."""

import pytest

from mpq.record.shapes import read_shapes, write_shapes
from mpq.report.forecast.sizes import predict
from mpq.report.tables.planned import planned


@pytest.fixture(scope="module")
def base():
    return dict(predict("wav2vec2_base"))


def test_every_planned_system_has_a_size(base):
    assert list(base) == list(dict.fromkeys(row.exp for row in planned("compression", "wav2vec2_base")))
    assert all(found.size.parameters == 94_396_320 for found in base.values())


def test_the_ratios(base):
    """Searched weights at the target, 9,339,552 others less their 3,744 biases at 8 bits, what is left at 32."""
    for exp, found in base.items():
        if exp.endswith("fp32"):
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
