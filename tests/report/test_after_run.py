"""What is printed at the end of a run: in 100 columns, with verdicts beside their sets, and a next command."""

import shlex

from example_tree import write_tree
from omegaconf import OmegaConf

from mpq.record.run_folder import RunFolder
from mpq.report.after_run import show

RUN = "tiny_wav2vec2_3p5bit"


def test_a_finished_run_is_shown_in_100_columns_with_its_map_and_what_to_do_next(tmp_path, capsys):
    root, corpus = tmp_path / "records", tmp_path / "cache" / "synthetic-x" / "test-other" / "1" / "0"
    result = next(one for one in write_tree(root, layers=2) if (one.exp, one.seed) == (RUN, 0))
    folder = RunFolder.of(root, result)
    folder.model.mkdir()
    corpus.mkdir(parents=True)
    (corpus / "a b.flac").touch()
    settings = {"root": str(root), "cache": str(tmp_path / "cache"), "data": {"root": None, "test": ["test-other"]}}
    show(result, OmegaConf.create(settings))
    lines = capsys.readouterr().out.splitlines()
    table, rest = lines[: lines.index("")], lines
    assert all(len(line) <= 100 for line in rest if str(tmp_path) not in line), table
    for name in result.wer:
        (row,) = [line for line in rest if line.startswith(f"{name} ")]
        assert "significant increase" in row
    layers = [line.split() for line in rest if line.split()[:1] in (["0"], ["1"])]
    assert len(layers) == 2 and all(set(cells[1:]) <= {*"12345678"} for cells in layers)
    assert folder.page.is_file()
    (command,) = [line.removeprefix("Now: ") for line in rest if line.startswith("Now: ")]
    assert shlex.split(command)[2:] == [str(corpus / "a b.flac"), f"model={folder.model}"]


def test_the_next_command_names_a_recording_of_ones_own_in_any_format(tmp_path, capsys):
    root, data = tmp_path / "records", tmp_path / "My Recordings"
    result = next(one for one in write_tree(root, layers=2) if (one.exp, one.seed) == (RUN, 0))
    RunFolder.of(root, result).model.mkdir()
    chapter = data / "test" / "7" / "1"
    chapter.mkdir(parents=True)
    for name in ("7-1.trans.txt", "7-1-0000.OGG"):
        (chapter / name).touch()
    settings = {"root": str(root), "cache": str(tmp_path), "data": {"root": str(data), "test": ["test"]}}
    show(result, OmegaConf.create(settings))
    (command,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Now: ")]
    assert shlex.split(command)[3] == str(chapter / "7-1-0000.OGG")
