import logging

import pytest

import mpq.tracking.logger as module
from mpq.errors import UserError
from mpq.tracking.content import log_result
from mpq.tracking.logger import check, run_logger

KEY = "0123456789abcdef" * 2 + "01234567"  # of the length that W&B's keys have


@pytest.fixture(autouse=True)
def no_login(monkeypatch, tmp_path):
    """The machine of somebody who never logged in."""
    import wandb

    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()  # it reads the environment once a process


def logged(tmp_path, mode="auto", exp="tiny", work="work", value=1.5):
    """A run with one line of figures; return the files it left."""
    import wandb

    settings = {"mode": mode, "project": "mpq"}
    with run_logger(settings, exp, 0, "one_stage", ["tag"], {"seed": 0}, tmp_path / "run", tmp_path / work) as logger:
        if logger:
            logger.log_metrics({"train/loss": value, "bits/average": 3.5}, step=1)
    wandb.teardown()  # as the end of the process does: finishing a run does not wait for its file
    return sorted((tmp_path / "run" / "wandb").glob("*run-*/run-*.wandb")) if logger else None


def test_without_a_login_a_run_is_logged_offline_with_its_figures(tmp_path):
    (path,) = logged(tmp_path)
    assert path.parent.name.startswith("offline-run-")
    content = path.read_bytes()
    for part in (b"train/loss", b"bits/average", b"tiny-seed0"):
        assert part in content


def test_two_runs_of_one_process_are_two_and_a_resumed_one_is_the_same(tmp_path):
    logged(tmp_path, exp="first", work="one", value=11.25)
    logged(tmp_path, exp="second", work="two")
    files = logged(tmp_path, exp="second", work="two")
    ids = [path.stem.removeprefix("run-") for path in files]
    assert len(files) == 3 and len(set(ids)) == 2
    assert ids.count((tmp_path / "two" / "wandb_id").read_text()) == 2
    assert sum(b"11.25" in path.read_bytes() for path in files) == 1


def test_a_failed_run_is_finished_too(tmp_path):
    import wandb

    with (
        pytest.raises(ZeroDivisionError),
        run_logger({"mode": "offline", "project": "mpq"}, "tiny", 0, "", [], {}, tmp_path / "run", tmp_path / "work"),
    ):
        assert wandb.run is not None
        _ = 1 / 0
    assert wandb.run is None


@pytest.mark.parametrize("how", ["off", "disabled"])
def test_off_means_no_logger_and_no_file(tmp_path, monkeypatch, how):
    if how == "disabled":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    assert logged(tmp_path, mode="off" if how == "off" else "auto") is None
    assert not list(tmp_path.iterdir())


def test_online_needs_a_login():
    with pytest.raises(UserError, match="wandb login"):
        check({"mode": "online", "project": "mpq"})


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
def test_both_kinds_of_login_are_seen(monkeypatch, tmp_path, host):
    (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    check({"mode": "online", "project": "mpq"})
    monkeypatch.setenv("WANDB_BASE_URL", "http://elsewhere.example:8080")
    with pytest.raises(UserError):
        check({"mode": "online", "project": "mpq"})
    (tmp_path / "netrc").write_text(f"machine elsewhere.example:8080\n  login user\n  password {KEY}\n")
    check({"mode": "online", "project": "mpq"})
    (tmp_path / "netrc").write_text("nonsense")
    with pytest.raises(UserError):
        check({"mode": "online", "project": "mpq"})
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    check({"mode": "online", "project": "mpq"})


def test_an_unknown_mode_lists_the_modes():
    with pytest.raises(UserError, match=r"logger\.mode=loud must be one of auto, offline, online, off"):
        check({"mode": "loud", "project": "mpq"})


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_an_unreachable_server_costs_one_warning_and_seconds(tmp_path, monkeypatch, caplog, mode):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(module, "_START_SECONDS", 2.0)
    with caplog.at_level(logging.WARNING, logger="mpq"):
        files = logged(tmp_path, mode=mode)
    offline = [path for path in files if path.parent.name.startswith("offline-run-")]
    assert len(offline) == 1 and b"train/loss" in offline[0].read_bytes()
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("mpq")]
    assert len(warnings) == 1 and "wandb sync" in warnings[0]


def test_wandbs_own_switch_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    (path,) = logged(tmp_path)
    assert path.parent.name.startswith("offline-run-")


def test_wandb_prints_nothing(tmp_path, capfd):
    """Neither its greeting nor a warning about the argument `anonymous`, which Lightning's logger would give it."""
    logged(tmp_path)
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_a_server_that_vanishes_costs_a_warning_and_not_the_run(tmp_path, monkeypatch, caplog):
    import wandb

    def vanished(*_, **__):
        raise wandb.errors.CommError("timed out")

    with (
        caplog.at_level(logging.WARNING, logger="mpq"),
        run_logger({"mode": "offline", "project": "mpq"}, "tiny", 0, "", [], {}, tmp_path, tmp_path / "work") as logger,
    ):
        finish = logger.experiment.finish
        monkeypatch.setattr(logger.experiment, "finish", vanished)
    finish()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("mpq")] == [
        "W&B lacks part of the run (timed out); `wandb sync` uploads it from the run's folder"
    ]


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("mpq")]


def test_a_home_that_cannot_be_written_costs_a_warning_and_the_logging(tmp_path, monkeypatch, caplog):
    def blocked(*_, **__):
        raise NotADirectoryError(20, "Not a directory", "home")

    monkeypatch.setattr("wandb.init", blocked)
    with caplog.at_level(logging.WARNING, logger="mpq"):
        assert logged(tmp_path) is None
    (message,) = messages(caplog)
    assert message.startswith("W&B can't log this run (") and "home" in message


def test_metrics_that_wandb_does_not_take_cost_one_warning_and_not_the_run(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with (
        caplog.at_level(logging.WARNING, logger="mpq"),
        run_logger({"mode": "offline", "project": "mpq"}, "tiny", 0, "", [], {}, tmp_path, tmp_path / "work") as logger,
    ):
        monkeypatch.setattr(logger.experiment, "log", full)
        for step in range(3):
            logger.log_metrics({"train/loss": 1.0}, step=step)
    (message,) = messages(caplog)
    assert message.startswith("W&B accepts no more metrics of this run (") and "No space left" in message


def test_figures_that_wandb_does_not_take_cost_a_warning(monkeypatch, caplog):
    monkeypatch.setattr("mpq.tracking.content._log_result", lambda *_: 1 / 0)
    with caplog.at_level(logging.WARNING, logger="mpq"):
        log_result(object(), None, [])
    assert messages(caplog) == ["W&B did not accept the run's results (division by zero); its record has them"]
