"""A folder in which nothing can be written."""

import mishaps
from tiny_process import begin, end
from tiny_run import words


def test_a_read_only_folder_is_told_in_one_sentence(tmp_path, model_folder, speech_folder):
    root, log = tmp_path / "records", tmp_path / "log"
    root.mkdir(mode=0o500)
    process = begin(words(root, model_folder, speech_folder, "logger.mode=off"), log, mishaps.without_privileges)
    assert end(process) == 1
    (told,) = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert str(root) in told and told.endswith("can't be written: Permission denied")
    assert "Traceback" not in log.read_text()
    assert not list(root.iterdir())
