from pathlib import Path

import numpy as np
import pytest
from recordings import label, record, tone

from mpq.data.corpus import divide, open_corpus
from mpq.data.librispeech import Found, Utterance, find, recordings
from mpq.errors import UserError


def spoken(speakers, each):
    """`each` utterances of every speaker."""
    return [
        Utterance(f"{s}-{k}", "all", str(s), Path(f"{s}-{k}.wav"), "A", 1.0)
        for s in range(speakers)
        for k in range(each)
    ]


@pytest.mark.parametrize(("speakers", "each"), [(1, 2), (1, 37), (9, 5), (10, 3), (40, 7), (300, 1)])
def test_about_a_tenth_is_held_out_and_nothing_is_in_both(speakers, each):
    everything = spoken(speakers, each)
    train, test = divide(everything)
    assert sorted([*train, *test], key=lambda u: u.id) == sorted(everything, key=lambda u: u.id) and train and test
    assert len(everything) * 0.1 <= len(test) <= max(len(everything) * 0.1 + each, 1)
    assert divide(everything) == (train, test)
    if speakers >= 10:
        assert not {u.speaker for u in train} & {u.speaker for u in test}


def test_a_single_utterance_cannot_be_divided():
    with pytest.raises(UserError, match="1 utterance can't be divided"):
        divide(spoken(1, 1))


def test_a_split_to_train_and_test_on_is_divided_and_others_are_not(tmp_path):
    for split in ("train", "other"):
        chapter = tmp_path / split / "1" / "1"
        for number in range(5):
            record(chapter / f"1-1-{split}{number}.flac", tone(0.5))
        label(chapter, {f"1-1-{split}{number}": "A TEST" for number in range(5)})
    corpus = open_corpus(str(tmp_path), None, ["train"], ["train", "other"], "stop", tmp_path)
    assert (len(corpus.train), len(corpus.test["train"]), len(corpus.test["other"])) == (4, 1, 5)
    assert not {u.id for u in corpus.train} & {u.id for u in corpus.test["train"]}


@pytest.mark.parametrize(
    ("splits", "train", "test"),
    [
        (["train-clean", "train-other", "test-a", "dev"], ["train-clean", "train-other"], ["dev", "test-a"]),
        (["talks"], ["talks"], ["talks"]),
        (["a", "b"], ["a", "b"], ["a", "b"]),
        (["train"], ["train"], ["train"]),
    ],
)
def test_splits_are_told_by_their_names(tmp_path, splits, train, test):
    for split in splits:
        record(tmp_path / split / "1" / "1" / "1-1-0.flac", tone(0.5))
        label(tmp_path / split / "1" / "1", {"1-1-0": "A"})
    assert find(tmp_path) == Found(tmp_path, train, test, transcribed=True)


@pytest.mark.parametrize("below", ["", "1", "1/1", "a/b/c/d"])
def test_a_folder_of_any_other_shape_is_one_split(tmp_path, below):
    folder = tmp_path / "Talks"
    record(folder / below / "x.flac", tone(0.5))
    (folder / below / "x.trans.txt").write_text("x A TEST\n")
    assert find(folder) == Found(tmp_path, ["Talks"], ["Talks"], transcribed=True)


def test_recordings_without_transcripts(tmp_path):
    paths = [record(tmp_path / name, tone(np.random.uniform(0.3, 1))) for name in ("a.wav", "b/a.wav", "c.opus")]
    (tmp_path / "bad.flac").write_bytes(b"no audio")
    (tmp_path / "notes.txt").write_text("x A TEST")
    assert not find(tmp_path).transcribed
    found = recordings(tmp_path)
    assert sorted(u.path for u in found.utterances) == sorted(paths) and len({u.id for u in found.utterances}) == 3
    assert len(found.skipped) == 1 and "bad.flac is not readable" in found.skipped[0]


def test_no_audio_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        find(tmp_path / "nowhere")
    (tmp_path / "x.trans.txt").write_text("x A\n")
    with pytest.raises(UserError, match=r"holds no audio: no file in it ends in one of \.flac"):
        find(tmp_path)
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    (tmp_path / "x.trans.txt").unlink()
    with pytest.raises(UserError, match=r"no recording in .* can be read; the first: .*bad\.wav"):
        recordings(tmp_path)
