"""The command in processes of its own: three at the same runs make nothing twice; a folder that can't be written."""

import json

import mishaps
from tiny_process import begin, end
from tiny_run import words

BASELINE = "tiny_wav2vec2_fp32_mini_speech"


def test_two_commands_share_one_baseline_and_a_third_is_refused(tmp_path, model_folder, speech_folder):
    """Two rows that start together, and one of them twice: three processes, three runs, none made twice."""
    root = tmp_path / "records"
    common = ("recipe=uniform", "trainer.updates=2", "logger.mode=off")
    commands = [words(root, model_folder, speech_folder, *common, f"target_bits={bits}") for bits in (2, 4, 4)]
    processes = [begin(command, tmp_path / f"log{number}") for number, command in enumerate(commands)]
    statuses = [end(process) for process in processes]
    logs = [(tmp_path / f"log{number}").read_text() for number in range(3)]
    assert statuses[0] == 0 and sorted(statuses[1:]) in ([0, 0], [0, 1]), logs  # [0, 0]: one came after the other
    for status, log in zip(statuses, logs, strict=True):
        told = [line for line in log.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in log
        assert len(told) == status and all("seed0 is being worked on by process" in line for line in told), log
    made = sorted(path.parent.parent.name for path in root.glob("*/seed0/result.json"))
    assert made == [BASELINE, "tiny_wav2vec2_uniform_2bit_mini_speech", "tiny_wav2vec2_uniform_4bit_mini_speech"]
    times = [json.loads(path.read_text())["time"] for path in root.glob("*uniform*/seed0/result.json")]
    assert all(stage["resumed"] == 0 for entry in times for stage in entry["stages"])
    assert not list((root / ".claims").iterdir()) and not list(root.rglob("*.partial"))


def test_a_read_only_folder_is_told_in_one_sentence(tmp_path, model_folder, speech_folder):
    root, log = tmp_path / "records", tmp_path / "log"
    root.mkdir(mode=0o500)
    process = begin(words(root, model_folder, speech_folder, "logger.mode=off"), log, mishaps.without_privileges)
    assert end(process) == 1
    (told,) = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert str(root) in told and told.endswith("can't be written: Permission denied")
    assert "Traceback" not in log.read_text()
    assert not list(root.iterdir())
