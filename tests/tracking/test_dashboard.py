"""What W&B is told of a run: an offline run's own file, read back."""

import json
import re

import pytest
from tiny_run import composed, words
from wandb_file import read_run

from mpq.errors import UserError
from mpq.pipeline import run
from mpq.tracking import workspace
from mpq.tracking.content import summary


@pytest.fixture(scope="module")
def logged(tmp_path_factory, model_folder, speech_folder):
    """A two-stage run: its record, what its `.wandb` file says, its search, and what it printed."""
    import wandb

    root = tmp_path_factory.mktemp("runs")
    more = ("recipe=two_stage_gumbel", "trainer.search_updates=8", "seed=3")
    result = run(composed(*words(root, model_folder, speech_folder, *more)))
    wandb.teardown()  # as the end of the process does: finishing a run does not wait for its file
    folder = root / result.exp / "seed3"
    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    return result, read_run(path), json.loads((folder / "search.json").read_text()), path.parent


def test_a_run_is_named_grouped_and_tagged(logged):
    result, file, *_ = logged
    about = {key: value for key, value in file["run"].items() if key != "config"}
    assert about == {
        "name": f"{result.exp}-seed3",
        "group": result.exp,
        "job_type": "two_stage_gumbel",
        "tags": ["tiny_wav2vec2", "two_stage_gumbel", "mini_speech", "own"],
        "project": "mpq",
    }
    assert file["run"]["config"]["target_bits"] == 3.5


def test_losses_budget_and_bits_are_logged_over_the_updates_of_the_whole_run(logged):
    _, file, *_ = logged
    lines = [line for line in file["history"] if "train/loss" in line]
    updates = [line["update"] for line in lines]
    assert updates == sorted(set(updates)) and updates[-1] == 8 + 12  # the second stage goes on where the first ended
    search = [line for line in lines if line["update"] <= 8]
    for line in search:
        assert line["bits/budget"] == 3.5 and line["bits/average"] == pytest.approx(3.5, abs=1e-3)
        bits = {key: value for key, value in line.items() if key.startswith("bits/site/")}
        assert len(bits) == 12 and all(2 <= value <= 8 for value in bits.values())
        shares = [value for key, value in line.items() if key.startswith("probability/")]
        assert sum(shares) == pytest.approx(12)
    assert {"train/ctc", "train/kl"} <= lines[-1].keys()
    assert {file["step"][name] for name in ("train/*", "bits/average", "bits/budget")} == {"update"}
    assert {"bits/site/*", "probability/*"} <= set(file["hidden"])  # hundreds of charts in the default view


def test_the_summary_is_the_record(logged):
    result, file, *_ = logged
    for key, value in summary(result).items():
        assert file["summary"][key] == pytest.approx(value), key
    assert {"cer/clean", "significance/clean/cer_difference"} <= summary(result).keys()
    assert {"wer/clean", "time/stage/precision", "time/stage/estimate", "significance/clean/p"} <= summary(
        result
    ).keys()
    assert not [key for key in file["summary"] if key.startswith(("bits/site/", "probability/"))]


def test_the_row_and_the_bits_over_time_are_tables(logged):
    result, file, search, folder = logged
    last = file["history"][-1]
    row = json.loads((folder / "files" / last["result/row.path"]).read_text())
    cells = dict(zip(row["columns"], row["data"][0], strict=True))
    assert cells["System"] == f"{result.exp} seed 3" and cells["WER % clean"] == result.wer["clean"].wer
    assert cells["CER % clean"] == result.wer["clean"].characters.cer
    assert cells["Bits"] == result.bits.average and cells["Updates"] == 20
    table = json.loads((folder / "files" / last["search/precision.path"]).read_text())
    stage = next(stage for stage in search if stage["name"] == "precision")
    assert table["columns"] == ["update", *stage["sites"]]
    shot = next(shot for shot in stage["trajectory"] if shot["probabilities"])
    expected = [sum(p * b for p, b in zip(line, stage["candidates"], strict=True)) for line in shot["probabilities"]]
    assert table["data"][0] == pytest.approx([shot["update"], *expected])
    picture = last["pictures/precision.path"]
    assert (folder / "files" / picture).read_bytes().startswith(b"\x89PNG")


def test_the_workspace_charts_what_runs_log(logged):
    _, file, *_ = logged
    keys = {
        re.sub(r"(\.[\w_]+)$", "", key) if key.startswith(("result/", "search/")) else key for key in file["summary"]
    }
    sections = workspace.sections(keys)
    names = [section.name for section in sections]
    assert names == ["Tables", "Word error rate", "Character error rate", "Training", "Precisions", "Compression time"]
    text = "".join(section._to_model().model_dump_json(by_alias=True, exclude_none=True) for section in sections)
    named = ("result/row", "wer/clean", "cer/clean", "size/packed_ratio", "train/loss", "bits/budget")
    named = (*named, "search/precision")
    for key in named:
        assert key in text and key in keys, key
    for key in set(re.findall(r"(?:wer|cer|train|bits|time|size|significance|search|result)/[\w/]+", text)):
        assert key in keys, key


@pytest.fixture
def no_login(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_without_a_login_one_sentence_says_what_to_do(no_login):
    with pytest.raises(UserError, match=r"needs a login: run `wandb login`; without an account `python scripts/report"):
        workspace.build("mpq")


def test_a_server_that_is_away_costs_one_sentence(no_login, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 2 + "01234567")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(workspace, "_SECONDS", 1)
    with pytest.raises(UserError, match="W&B returned no runs of nobody/mpq: ") as told:
        workspace.build("mpq", "nobody")
    assert "\n" not in str(told.value)


def test_the_keys_of_the_projects_runs_decide_what_is_shown(no_login, monkeypatch):
    """A stand-in for W&B's server, which no test can reach: it serves runs and takes the view."""
    import wandb
    import wandb_workspaces.workspaces as ws

    class Run:
        summary = {"wer/test-clean": 5.0, "time/seconds": 1.0}  # noqa: RUF012

    class Api:
        default_entity = "somebody"
        found: list = [Run()]  # noqa: RUF012

        def __init__(self, timeout):
            pass

        def runs(self, path):
            assert path == "somebody/mpq"
            return self.found

    saved = []
    monkeypatch.setenv("WANDB_API_KEY", "x")
    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setattr(ws.Workspace, "save", lambda view: saved.append((view, view._to_model())))
    monkeypatch.setattr(ws.Workspace, "url", "https://wandb.example/view")
    assert workspace.build("mpq") == "https://wandb.example/view"
    ((view, model),) = saved
    assert "wer/test-clean" in model.spec.model_dump_json(by_alias=True, exclude_none=True)
    assert (view.entity, view.project, view.name) == ("somebody", "mpq", workspace.NAME)
    assert "Training" not in [section.name for section in view.sections]
    earlier = ws.Workspace(entity="somebody", project="mpq", name="mine")
    monkeypatch.setattr(ws.Workspace, "from_url", {"https://wandb.example/view": earlier}.__getitem__)
    workspace.build("mpq", address="https://wandb.example/view")
    assert saved[1][0] is earlier and [s.name for s in earlier.sections] == [s.name for s in view.sections]
    with pytest.raises(UserError, match="W&B rejected the view of somebody/mpq: "):
        workspace.build("mpq", address="https://wandb.example/other")
    Api.found = []
    with pytest.raises(UserError, match="somebody/mpq has no finished runs: upload offline runs with `wandb sync"):
        workspace.build("mpq")
