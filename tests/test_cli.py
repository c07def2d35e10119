"""What a user reads after a wrong word: one sentence that lists the right ones, exit status 1, and nothing written."""

import os
import signal
import subprocess
import sys
import time

import pytest
from tiny_run import run_here

from mpq.conf import REPOSITORY
from mpq.errors import UserError
from mpq.files import replacing
from mpq.guard import explain, guarded


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("+exp=nonsense", ["there is no exp=nonsense", "hubert_large_3p5bit", "wav2vec2_base_fp32"]),
        ("model=nonsense", ["there is no model=nonsense", "hubert_large", "tiny_wav2vec2"]),
        ("recipe=nonsense", ["there is no recipe=nonsense", "one_stage", "uniform"]),
        ("modl=tiny_hubert", ["there is no setting modl", "model", "target_bits"]),
        ("trainer.update=5", ["there is no setting trainer.update; trainer has accelerator", "updates"]),
        ("distill.keep=maybe", ["distill.keep=maybe must be true or false"]),
        ("+target_bit=4", ["there is no setting target_bit", "target_bits"]),
        ("exp=hubert_large_fp32", ["+exp=hubert_large_fp32"]),
        ("tiny", ["'tiny' can't be read", "key=value"]),
        ("target_bits=1.5", ["target_bits=1.5 must be between 2 and 8"]),
        ("target_bits=9", ["target_bits=9 must be between 2 and 8"]),
        ("target_bits=abc", ["target_bits=abc must be a number of bits"]),
        ("recipe=uniform", ["target_bits=3.5 must be a whole number from 1 to 8"]),
        ("recipe.stages.one_stage.search.candidates=[2,a]", ["candidates=[2, 'a'] must be different whole numbers"]),
        (
            "+recipe.stages.one_stage.search.foo=1",
            ["stages.one_stage.search.foo; gumbel has", "share"],
        ),
        ("recipe.stages.one_stage.search.freeze_at=2", ["freeze_at=2"]),
        ("recipe.stages.one_stage.search.descend=2", ["descend=2 must be null or a share of the search's updates"]),
        (
            "recipe.stages.one_stage.search.descend=0.5 recipe.stages.one_stage.search.descend_from=3",
            ["descend_from=3 must be at least target_bits=3.5"],
        ),
        ("+recipe.stages.one_stage.foo=1", ["there is no setting recipe.stages.one_stage.foo; a stage has", "updates"]),
        ("+recipe.stages.two.updates=1", ["recipe.stages.two must set search, start_from; the stages are one_stage"]),
        ("+trainer.foo=1", ["there is no setting trainer.foo; trainer has accelerator", "updates"]),
        ("recipe=pass2", ["recipe.stages.pass2.start_from=None must be", "the folder of a packed model (<run>/model)"]),
        (
            "recipe=pass2 recipe.stages.pass2.start_from=previous",
            ["start_from=previous must be one of teacher, "],
        ),
        ("recipe=pass2 recipe.stages.pass2.start_from=/nowhere", ["start_from=/nowhere must be one of"]),
        ("seed=-1", ["seed=-1 must be a whole number"]),
        ("logger.mode=loud", ["logger.mode=loud must be one of auto, offline, online, off"]),
        ("data.root=/nowhere", ["/nowhere is not a folder", "scripts/prepare.py librispeech"]),
        ("data.on_bad_audio=sing", ["data.on_bad_audio=sing must be one of stop, skip"]),
        *(
            (f"trainer.precision={word}", [f"precision={word} must be one of 32-true, bf16-mixed, 16-mixed"])
            for word in ("bf16-true", "16-true", "64-true", "64", "transformer-engine", "half")
        ),
        ("trainer.accelerator=tpu", ["accelerator=tpu must be one of auto, cpu, gpu, cuda"]),
        ("data.root=/no=where", ["'data.root=/no=where' can't be read", "in quotes: 'data.root=\"/no=where\"'"]),
        ("data.test=[train-nine]", ["no split 'train-nine'", "test-clean"]),
        ("model.path=/nowhere", ["there is no folder /nowhere"]),
        ("model=hubert_large", ["data/LibriSpeech is not a folder", "scripts/prepare.py librispeech"]),
    ],
)
def test_a_wrong_word_gives_one_sentence(word, told, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, *word.split()) == 1
    printed = capfd.readouterr()
    sentence = printed.err.strip()
    assert sentence.startswith("error: ") and "\n" not in sentence, sentence
    assert all(part in sentence for part in told), sentence
    assert not list(tmp_path.iterdir())


def test_the_hub_model_of_the_paper_is_missing_within_seconds(tmp_path, monkeypatch, capfd, speech_folder):
    monkeypatch.chdir(tmp_path)
    data = [f"data.root={speech_folder}", "data.train=[train]", "data.test=[clean]"]
    assert run_here(monkeypatch, "model=hubert_large", "model.path=nobody/there-is-no-such-model", *data) == 1
    sentence = capfd.readouterr().err.strip()
    assert sentence.startswith("error: the model nobody/there-is-no-such-model") and "\n" not in sentence
    assert "hf download" in sentence and "model.path=" in sentence
    assert not list(tmp_path.iterdir())


def test_a_mistake_inside_hydra_or_a_worker_process_is_still_one_sentence():
    from hydra.errors import InstantiationException

    wrapped = InstantiationException("Error in call to target ...")
    wrapped.__cause__ = UserError("freeze_at=2 must be a share")
    assert explain(wrapped) == "freeze_at=2 must be a share"
    trace = UserError(
        "Caught UserError in worker\nOriginal Traceback\n  File x\nmpq.errors.UserError: a.flac is silent\n"
    )
    assert explain(trace) == "a.flac is silent"


def test_a_disk_that_takes_nothing_is_the_machines_fault_and_a_defect_is_ours(tmp_path):
    assert explain(OSError(28, "No space left on device", "out/x")) == "out/x can't be written: No space left on device"
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        with pytest.raises(OSError) as refused:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        assert str(explain(refused.value)).startswith(f"{tmp_path / folder} can't be written: ")
    assert explain(FileNotFoundError(2, "No such file", "x")) is None
    assert explain(KeyError("defect")) is None


def test_an_interruption_speaks_of_checkpoints_only_where_there_are_some(capfd):
    def interrupted(*arguments):
        raise KeyboardInterrupt(*arguments)

    for arguments, said in (((), "interrupted"), (("it resumes",), "interrupted; it resumes")):
        with pytest.raises(SystemExit) as end:
            guarded(interrupted)(*arguments)
        assert end.value.code == 130 and capfd.readouterr().err.strip() == said


def test_a_terminated_script_leaves_nothing_half_written(tmp_path):
    def write():
        with replacing(tmp_path / "file") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)  # the signal ends it

    with pytest.raises(SystemExit) as ended:
        guarded(write)()
    assert ended.value.code == 143
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_reader_who_has_seen_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` does in the end
    command = [sys.executable, str(REPOSITORY / "scripts" / "evaluate.py"), "--help"]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # the text is short: nothing is written before the end
    with os.fdopen(writing, "w") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=buffered, check=False)
    assert (done.returncode, done.stderr) == (1, "")
