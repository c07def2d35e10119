"""Packing, ours beside whichever peers are installed."""

import importlib.util

import numpy as np
import pytest

from mpq.bench import peers
from mpq.errors import UserError


def test_packing_reports_ours_and_every_peer():
    rows = peers.run(peers.Options(bits=(8, 2), clips=0))
    reported = {row["system"].split(" at ")[0] for row in rows}
    assert reported == {"float32", *peers.PEERS}
    by_bits = {row["bits"]: row for row in rows if row["system"] == "ours"}
    assert by_bits[2]["file_bytes"] < by_bits[8]["file_bytes"] < rows[0]["file_bytes"]
    assert 0 < by_bits[8]["logit_error"] < by_bits[2]["logit_error"]
    problems = {row["system"]: row["problem"] for row in rows if "problem" in row}
    assert "8 and 4 bits" in problems["NNCF at 2 bits"]
    for module, name in (("torchao", "torchao"), ("optimum", "optimum-quanto"), ("nncf", "NNCF")):
        if importlib.util.find_spec(module) is None:
            assert "not installed" in problems[f"{name} at 8 bits"]
    assert np.isfinite([row["logit_error"] for row in rows if "logit_error" in row]).all()


def test_a_precision_that_no_peer_has_is_refused():
    with pytest.raises(UserError, match="bits=3"):
        peers.run(peers.Options(bits=(3,)))
