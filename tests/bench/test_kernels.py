"""The quantizers alone beside a copy of the weight."""

import pytest
import torch

from mpq.bench import kernels
from mpq.errors import UserError
from mpq.quant import compiled


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(compiled, "_failed", False)
    compiled._compiled.cache_clear()
    yield
    compiled._compiled.cache_clear()


def test_a_row_for_each_way_and_kernel(monkeypatch):
    calls = []

    def uncompiled(function, **_):
        return lambda *given: calls.append(function.__name__) or function(*given)

    monkeypatch.setattr(torch, "compile", uncompiled)
    rows = {row["system"]: row for row in kernels.run(kernels.Options(rows=16, columns=24, rounds=3, threads=1))}
    quantizers = [f"{name}_{kernel}" for name in ("lsq_4bit", "mixture_of_3") for kernel in ("plain", "compiled")]
    assert set(rows) == {"copy", *quantizers, *(f"{name}_both_ways" for name in quantizers)}
    assert rows["copy"]["share_of_bandwidth"] == 1
    for name, row in rows.items():
        moved = {"copy": 8}.get(name, 20 if name.endswith("both_ways") else 8)
        seconds = row["seconds"]["median"]
        assert row["gigabytes_a_second"] == pytest.approx(moved * 16 * 24 / seconds / 1e9)
        share = moved / 8 * rows["copy"]["seconds"]["median"] / seconds
        assert row["share_of_bandwidth"] == pytest.approx(share)
    assert calls.count("_forward") == 4 * (3 + 1) and calls.count("_backward") == 2 * (3 + 1)
    assert compiled._choice == "auto"


def test_where_pytorch_can_not_compile_those_rows_say_so(monkeypatch):
    def broken(function, **_):
        def call(*_):
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    rows = kernels.run(kernels.Options(rows=4, columns=8, rounds=1, threads=1))
    assert [("compiled" in row["system"]) == ("problem" in row) for row in rows] == [True] * 9


@pytest.mark.parametrize("wrong", [{"device": "tpu"}, {"kernels": ("fast",)}, {"rows": 0}, {"rounds": 0}])
def test_what_can_not_be_measured_is_refused(wrong):
    with pytest.raises(UserError):
        kernels.run(kernels.Options(**wrong))
