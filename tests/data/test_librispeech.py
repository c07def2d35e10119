import json
import logging
import os

import numpy as np
import pytest
from recordings import FORMATS, cut, label, record, split_of, tone

from mpq.data.folder import files_below, tell_left_out
from mpq.data.librispeech import check_splits, find, read_split, recordings
from mpq.errors import UserError


def test_reads_the_layout_in_every_format(tmp_path):
    texts = {}
    for number, suffix in enumerate(FORMATS):
        name = f"17-3-{number:04d}"
        record(tmp_path / "dev" / "17" / "3" / f"{name}{suffix}", tone(1 + number / 4))
        texts[name] = f"NUMBER {number}"
    label(tmp_path / "dev" / "17" / "3", texts)
    split = read_split(tmp_path, "dev")
    assert not split.skipped
    assert {u.id: u.text for u in split.utterances} == texts
    assert {(u.speaker, u.split) for u in split.utterances} == {("17", "dev")}
    assert [u.seconds for u in split.utterances] == pytest.approx([1, 1.25, 1.5, 1.75], abs=0.03)


def test_ignores_what_is_hidden(tmp_path):
    chapter = split_of(tmp_path)
    record(chapter.parent / ".1.4711.partial" / "1-1-0000.flac", tone(3.0))  # left by a killed process
    (chapter / "._1-1-0001.flac").write_bytes(b"left by another system")
    assert [u.seconds for u in read_split(tmp_path, "test").utterances] == pytest.approx([0.5, 0.6])


def _empty(chapter):
    (chapter / "1-1-9000.flac").write_bytes(b"")
    return {"1-1-9000": "NOTHING"}


def _cut_wav(chapter):
    cut(record(chapter / "1-1-9001.wav", tone(1.0)), 0.5)
    return {"1-1-9001": "HALF"}


def _cut_ogg(chapter):
    cut(record(chapter / "1-1-9002.ogg", tone(1.0)), 0.99)
    return {"1-1-9002": "NEARLY"}


def _no_audio(chapter):
    (chapter / "1-1-9003.flac").write_text("no audio at all")
    return {"1-1-9003": "WORDS"}


def _unlabelled(chapter):
    record(chapter / "1-1-9004.flac", tone(1.0))
    return {}


def _blank_label(chapter):
    record(chapter / "1-1-9005.flac", tone(1.0))
    return {"1-1-9005": " "}


def _transcript_only(chapter):
    return {"1-1-9006": "NEVER SAID"}


def _two_texts(chapter):
    record(chapter / "1-1-9008.flac", tone(1.0))
    (chapter / "more.trans.txt").write_text("1-1-9008 OTHER WORDS\n")
    return {"1-1-9008": "SOME WORDS"}


def _lost_folder(chapter):
    (chapter.parent / "2").symlink_to(chapter.parent / "nowhere")
    return {}


def _odd_name(chapter):
    (chapter.parent / os.fsdecode(b"caf\xe9")).mkdir()
    return {}


def _odd_file(chapter):
    (chapter / os.fsdecode(b"1-1-caf\xe9.flac")).write_bytes((chapter / "1-1-0000.flac").read_bytes())
    return {}


def _same_name(chapter):
    record(chapter / "1-1-9007.flac", tone(1.0))
    record(chapter / "1-1-9007.wav", tone(2.0))
    return {"1-1-9007": "WHICH ONE"}


BAD = {
    _empty: (r"1-1-9000.flac is empty", 1),
    _cut_wav: (r"1-1-9001.wav is truncated", 1),
    _cut_ogg: (r"1-1-9002.ogg is truncated", 1),
    _no_audio: (r"1-1-9003.flac is not readable audio", 1),
    _unlabelled: (r"1-1-9004.flac has no transcript", 1),
    _blank_label: (r"1-1-9005.flac has no transcript", 1),
    _transcript_only: (r"1-1-9006 of .*test has a transcript but no audio", 1),
    _two_texts: (r"1-1-9008 has two different transcripts, the second in .*more.trans.txt", 1),
    _lost_folder: (r"test/1/2 is a broken link", 1),
    _odd_name: (r"test/1/caf\\xe9 has a name that is not UTF-8: rename it", 1),
    _odd_file: (r"test/1/1/1-1-caf\\xe9.flac has a name that is not UTF-8: rename it", 1),
    _same_name: (r"1-1-9007.(flac|wav) shares its name", 2),
}


@pytest.mark.parametrize("spoil", BAD)
def test_a_bad_file_stops_or_is_counted(tmp_path, spoil):
    chapter = split_of(tmp_path)
    label(chapter, {"1-1-0000": "A TEST", "1-1-0001": "A TEST", **spoil(chapter)})
    complaint, count = BAD[spoil]
    with pytest.raises(UserError, match=f"{complaint}.*on_bad_audio=skip") as caught:
        read_split(tmp_path, "test", "stop")
    assert len(str(caught.value).splitlines()) == 1
    split = read_split(tmp_path, "test", "skip")
    assert [u.id for u in split.utterances] == ["1-1-0000", "1-1-0001"]
    assert len(split.skipped) == count
    "\n".join(split.skipped).encode()  # what can be printed and written


def test_a_transcript_that_is_no_text(tmp_path):
    split_of(tmp_path)
    record(tmp_path / "test" / "2" / "2" / "2-2-0000.flac", tone(1.0))
    (tmp_path / "test" / "2" / "2" / "2-2.trans.txt").write_bytes(b"2-2-0000 \xff\xfe\n")
    with pytest.raises(UserError, match=r"2-2\.trans\.txt is not readable text.*1 more like it"):
        read_split(tmp_path, "test")
    assert len(read_split(tmp_path, "test", "skip").utterances) == 2


def test_transcripts_of_other_programs(tmp_path):
    chapter = split_of(tmp_path)
    text = "\ufeff1-1-0000\tA  TEST \r\n\r\n1-1-0001 CAFÉ\r\n"
    (chapter / "1-1.trans.txt").write_text(text, encoding="utf-8")
    assert [u.text for u in read_split(tmp_path, "test").utterances] == ["A TEST", "CAFÉ"]


@pytest.mark.parametrize("sign", ["\u2028", "\x0b", "\x0c", "\x1c", "\x85", "\u2029"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_ends_at_line_feed_and_carriage_return_alone(tmp_path, sign, end):
    chapter = split_of(tmp_path)
    text = f"1-1-0000 A TEST{sign}SAID TWICE{end}1-1-0001 CAFÉ{end}"
    (chapter / "1-1.trans.txt").write_bytes(text.encode())
    assert [u.text for u in read_split(tmp_path, "test").utterances] == ["A TEST SAID TWICE", "CAFÉ"]


def test_the_same_words_twice_are_one_transcript(tmp_path):
    chapter = split_of(tmp_path)
    (chapter / "more.trans.txt").write_text("1-1-0000 A  TEST\n")
    assert len(read_split(tmp_path, "test").utterances) == 2


def test_linked_folders_are_read_and_circles_are_not(tmp_path):
    split_of(tmp_path / "data")
    for speaker, chapter in (("21", "1"), ("1", "2")):
        place = tmp_path / "elsewhere" / speaker / chapter
        record(place / f"{speaker}-{chapter}-0000.flac", tone(0.5))
        label(place, {f"{speaker}-{chapter}-0000": "ELSEWHERE"})
    test = tmp_path / "data" / "test"
    (test / "21").symlink_to(tmp_path / "elsewhere" / "21")
    (test / "1" / "2").symlink_to(tmp_path / "elsewhere" / "1" / "2")
    (test / "1" / "around").symlink_to(test)
    (tmp_path / "elsewhere" / "21" / "back").symlink_to(test)
    (test / "1" / "self").symlink_to(test / "1" / "self")
    found = read_split(tmp_path / "data", "test", "skip")
    assert {(u.id, u.speaker) for u in found.utterances} == {
        ("1-1-0000", "1"),
        ("1-1-0001", "1"),
        ("1-2-0000", "1"),
        ("21-1-0000", "21"),
    }
    assert found.skipped == [f"{test}/1/self is a broken link"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    chapter = split_of(tmp_path)
    scan = os.scandir

    def forbidden(path):
        if str(path) == str(chapter):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert files_below(tmp_path) == ([], [f"{chapter} can't be read: Permission denied"])


def test_names_that_are_not_utf8_cost_a_message_each(tmp_path):
    odd = tmp_path / "talks" / os.fsdecode(b"caf\xe9.wav")
    record(tmp_path / "talks" / "a.wav", tone(0.5))
    odd.write_bytes((tmp_path / "talks" / "a.wav").read_bytes())
    found = recordings(find(tmp_path / "talks").root)
    assert [u.id for u in found.utterances] == ["a.wav"]
    assert found.skipped == [rf"{tmp_path}/talks/caf\xe9.wav has a name that is not UTF-8: rename it"]
    json.dumps([*found.skipped, *(u.id for u in found.utterances)], ensure_ascii=False).encode()
    (tmp_path / "talks").rename(tmp_path / os.fsdecode(b"\xff"))
    for read in (lambda: find(tmp_path / os.fsdecode(b"\xff")), lambda: read_split(os.fsdecode(b"\xff"), "test")):
        with pytest.raises(UserError, match=r"\\xff has a name that is not UTF-8"):
            read()


def test_what_is_left_out_is_named_and_counted_once(caplog):
    messages = [f"test_librispeech {number}.flac is empty" for number in range(9)]
    with caplog.at_level(logging.WARNING):
        tell_left_out(messages[:2])
        tell_left_out(messages)
        tell_left_out(messages)
        tell_left_out([f"one more {message}" for message in messages[:6]])  # all are named rather than one counted
    said = [f"left out: {message}" for message in messages[:7]]
    named = [f"left out: one more {message}" for message in messages[:6]]
    assert [record.getMessage() for record in caplog.records] == [*said, "left out: 2 more", *named]


def test_all_bad(tmp_path):
    label(tmp_path / "test" / "1" / "1", {"1-1-0000": "NEVER SAID"})
    with pytest.raises(UserError, match="no usable utterance"):
        read_split(tmp_path, "test", "skip")


def test_unknown_names_list_what_there_is(tmp_path):
    split_of(tmp_path, split="train")
    split_of(tmp_path, split="dev")
    with pytest.raises(UserError, match=r"no split 'tests'; it has dev, train\. Get it"):
        check_splits(tmp_path, ["train", "tests"], "Get it")
    with pytest.raises(UserError, match="nowhere is not a folder"):
        check_splits(tmp_path / "nowhere", ["train"])
    with pytest.raises(UserError, match="on_bad_audio=ignore must be one of stop, skip"):
        read_split(tmp_path, "train", "ignore")


def test_order_is_that_of_names(tmp_path, rng):
    names = [f"{speaker}-{chapter}-{number:04d}" for speaker in (3, 12) for chapter in (7, 10) for number in range(3)]
    for name in rng.permutation(names):
        speaker, chapter, _ = name.split("-")
        record(tmp_path / "test" / speaker / chapter / f"{name}.flac", 0.1 * np.ones(2_000))
        with (tmp_path / "test" / speaker / chapter / f"{speaker}-{chapter}.trans.txt").open("a") as file:
            file.write(f"{name} A TEST\n")
    paths = [u.path for u in read_split(tmp_path, "test").utterances]
    assert len(paths) == 12 and paths == sorted(paths)
