import pytest

from mpq.files import remove_partial, replacing, write_text


def test_a_file_appears_whole_with_its_folder(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "é")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "é".encode()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failure_leaves_what_was_there(tmp_path, kind):
    path = tmp_path / "a"
    if kind == "file":
        path.write_text("old")
    else:
        path.mkdir()
        (path / "inner").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        assert not temporary.exists()
        if kind == "file":
            temporary.write_text("new")
        else:
            temporary.mkdir()
            (temporary / "inner").write_text("new")
        raise KeyboardInterrupt
    assert (path if kind == "file" else path / "inner").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_a_folder_with_all_that_was_in_it(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
    assert [inner.name for inner in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    for name in (".a.txt.123.partial", "a.partial", ".hidden"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".model.123.partial").mkdir()
    (tmp_path / ".model.123.partial" / "weights").write_text("x")
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.partial"]
    remove_partial(tmp_path / "missing")
