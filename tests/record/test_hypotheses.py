"""The texts of a run: there and back, and nothing broken is read."""

import gzip
import json
import multiprocessing
import random

import pytest

from mpq.errors import UserError
from mpq.record.hypotheses import Unfinished, add_references, read_hypotheses, read_references, write_hypotheses
from mpq.record.run_folder import references_file

FORK = multiprocessing.get_context("fork")
TEXTS = {
    "test-other": {"b-1": "two\u2028lines \u0085 and a “quote”", "a-1": ""},
    "test-clean": {"b-1": 'back\\slash "and" tab\t', "é": "naïve\nword"},
}


def test_there_and_back_in_the_same_order(tmp_path):
    path = tmp_path / "run" / "hypotheses.jsonl"
    write_hypotheses(path, TEXTS)
    read = read_hypotheses(path)
    assert read == TEXTS
    assert [list(texts) for texts in read.values()] == [list(texts) for texts in TEXTS.values()]
    lines = path.read_bytes().decode().split("\n")
    assert json.loads(lines[1]) == {"set": "test-other", "id": "a-1", "hypothesis": ""}
    assert len(lines) == 5


def test_broken_files_are_refused_with_their_line(tmp_path):
    path = tmp_path / "hypotheses.jsonl"
    write_hypotheses(path, TEXTS)
    whole = path.read_text()
    path.write_text(whole[:-1])
    with pytest.raises(UserError, match="truncated"):
        read_hypotheses(path)
    path.write_text(whole + whole.split("\n")[0] + "\n")
    with pytest.raises(UserError, match="line 5 repeats test-other b-1"):
        read_hypotheses(path)
    for line in ('{"set": "s"', '{"set": "s", "id": "i"}', "[]", "3", ""):
        path.write_text(whole + line + "\n")
        with pytest.raises(UserError, match=r"hypotheses\.jsonl line 5 must be"):
            read_hypotheses(path)
    with pytest.raises(UserError, match="can't be read"):
        read_hypotheses(tmp_path / "none.jsonl")


def test_references_are_written_once_and_only_grow(tmp_path):
    path = tmp_path / "references" / "embedded.jsonl"
    assert references_file(tmp_path, "embedded") == path
    add_references(path, {"test-clean": {"a": "one"}})
    before = path.stat().st_mtime_ns, path.stat().st_ino
    add_references(path, {"test-clean": {"a": "one"}})
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    add_references(path, {"test-clean": {"b": "two"}, "test-other": {"a": "three"}})
    assert read_references(path) == {"test-clean": {"a": "one", "b": "two"}, "test-other": {"a": "three"}}


def test_two_corpora_of_one_name_are_refused(tmp_path):
    path = references_file(tmp_path, "embedded")
    add_references(path, {"test-clean": {"a": "one"}})
    before = path.read_text()
    with pytest.raises(UserError, match=r"test-clean a: another corpus .* root=FOLDER keeps both, overwrite=true"):
        add_references(path, {"test-clean": {"b": "two", "a": "other"}})
    assert path.read_text() == before
    add_references(path, {"test-clean": {"b": "two", "a": "other"}}, replace=True)
    assert read_references(path) == {"test-clean": {"a": "other", "b": "two"}}
    for name in ("", "a/b", "..", "/etc"):
        with pytest.raises(UserError, match="plain file name"):
            references_file(tmp_path, name)


def test_a_packed_file_reads_alike_and_a_damaged_one_is_refused(tmp_path):
    path, packed = tmp_path / "hypotheses.jsonl", tmp_path / "hypotheses.jsonl.gz"
    texts = {"clean": {f"u{i}": f"word {random.random()} ä" for i in range(50)}}
    write_hypotheses(path, texts)
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()
    assert read_hypotheses(path) == texts
    whole = packed.read_bytes()
    for damaged in (whole[:-9], whole[:40], b"", whole[:30] + bytes([whole[30] ^ 255]) + whole[31:]):
        packed.write_bytes(damaged)
        with pytest.raises(UserError, match=r"hypotheses\.jsonl can't be read"):
            read_hypotheses(path)


def test_an_evaluation_goes_on_after_its_last_whole_line_and_only_for_the_same_weights(tmp_path):
    path = tmp_path / "hypotheses.jsonl"
    first = Unfinished(path, "abc")
    first.add("clean", {"1": "A", "2": "B\u2028"})
    first.add("other", {"3": ""})
    with path.open("ab") as file:
        file.write('{"set": "other", "id": "4", "hypothesis": "é'.encode()[:-1])  # killed while it wrote
    second = Unfinished(path, "abc")
    assert second.texts == first.texts == {"clean": {"1": "A", "2": "B\u2028"}, "other": {"3": ""}}
    second.add("other", {"4": "D"})
    assert Unfinished(path, "abc").texts["other"] == {"3": "", "4": "D"}
    assert Unfinished(path, "abd").texts == {} == Unfinished(path, "abc").texts
    with path.open("a") as file:
        file.write("[1]\n")
    assert Unfinished(path, "abc").texts == {} and path.read_text() == '{"weights": "abc"}\n'


def add(root, number):
    for utterance in range(5):
        add_references(references_file(root, "corpus"), {"test": {f"{number}-{utterance}": "words"}})


def test_references_that_many_processes_add_are_all_there(tmp_path):
    processes = [FORK.Process(target=add, args=(tmp_path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(read_references(tmp_path / "references" / "corpus.jsonl")["test"]) == 20
    assert [path.name for path in (tmp_path / "references").iterdir()] == ["corpus.jsonl"]
