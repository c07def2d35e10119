"""What a search learned, there and back, and enough of it to decide another budget."""

import json

import pytest
import torch

from mpq.errors import UserError
from mpq.quant.sites import Site
from mpq.record.search import read_search, write_search
from mpq.search.budget import log_solve
from mpq.search.gumbel import GumbelSearch
from mpq.train.precisions import describe, snapshot

SITES = [
    Site(f"encoder.layers.{layer}.{role}.weight", (rows, 4), 4 * rows, True)
    for layer in range(3)
    for role, rows in (("q_proj", 3), ("v_proj", 5))
]


@pytest.fixture
def search():
    search = GumbelSearch(share="block")
    search.bind(SITES, 3.5, seed=0)
    search.start_step(3, 10)
    with torch.no_grad():
        search.logits.normal_(generator=torch.Generator().manual_seed(torch.seed() % 2**32))
    return search


def test_there_and_back(search, tmp_path):
    stage = describe("one_stage", search, [snapshot(5, 1.5, search), snapshot(10, 1.25, None)])
    write_search(tmp_path / "search.json", [stage, stage])
    assert read_search(tmp_path / "search.json") == (stage, stage)
    assert (stage.method, stage.candidates, stage.target) == ("gumbel", (2, 4, 8), 3.5)
    assert stage.trajectory[1].probabilities is None


def test_a_snapshot_expects_the_target_and_its_rows_are_the_sites(search):
    entry = snapshot(5, None, search)
    probabilities = torch.tensor(entry.probabilities, dtype=torch.float64)
    sizes = torch.tensor([site.numel for site in SITES], dtype=torch.float64)
    assert torch.allclose(probabilities.sum(1), torch.ones(len(SITES), dtype=torch.float64), atol=1e-4)
    bits = probabilities @ torch.tensor([2.0, 4.0, 8.0], dtype=torch.float64)
    assert float((bits * sizes).sum() / sizes.sum()) == pytest.approx(3.5, abs=1e-3)
    assert entry.probabilities[0] == entry.probabilities[1]  # the sites of one block share their precision


def test_logits_are_exact_so_that_another_budget_can_be_decided(search):
    stage = describe("one_stage", search, [])
    logits = torch.tensor(stage.logits, dtype=torch.float32)
    assert torch.equal(logits, search.per_site(search.logits.detach()))
    sizes = torch.tensor(stage.parameters)
    again = log_solve(logits, sizes, stage.candidates, stage.target, torch.tensor(stage.temperature))
    assert torch.allclose(again, search.per_site(search.scores()), atol=1e-5)


@pytest.mark.parametrize("text", ["", "{}", "[{}]", "[1]", json.dumps([{"name": 3}])])
def test_a_damaged_file_is_refused(text, tmp_path):
    path = tmp_path / "search.json"
    path.write_text(text)
    with pytest.raises(UserError, match="is damaged"):
        read_search(path)


@pytest.mark.parametrize(
    ("field", "shorter"), [("logits", lambda v: v[1:]), ("logits", lambda v: [r[1:] for r in v]), ("parameters", None)]
)
def test_rows_that_do_not_fit_the_sites_are_refused(search, tmp_path, field, shorter):
    path = tmp_path / "search.json"
    write_search(path, [describe("one_stage", search, [])])
    (stage,) = json.loads(path.read_text())
    path.write_text(json.dumps([{**stage, field: (shorter or (lambda v: v[1:]))(stage[field])}]))
    with pytest.raises(UserError, match=rf"stages\[0\]\.{field} must have one"):
        read_search(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*search\.json"):
        read_search(tmp_path / "search.json")
