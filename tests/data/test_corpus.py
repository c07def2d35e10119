from pathlib import Path

import numpy as np
import pytest
from recordings import label, record, split_of, tone

from mpq.data import corpus
from mpq.data.corpus import check, corpus_name, divide, first_of_each, open_corpus
from mpq.data.librispeech import Found, Utterance, find, recordings
from mpq.errors import UserError

SMALL = {"seed": 0, "utterances": {"train": 4, "dev-clean": 0, "test-clean": 2}}


def opened(root, train=("train",), test=("test",), on_bad_audio="stop"):
    return open_corpus(str(root), None, train, test, on_bad_audio, cache="unused")


@pytest.fixture
def root(tmp_path):
    split_of(tmp_path / "My-Speech", 3, "train")
    split_of(tmp_path / "My-Speech", 2, "test")
    return tmp_path / "My-Speech"


def test_opens_a_folder(root):
    found = opened(root)
    assert (found.name, found.synthetic, found.skipped) == ("my_speech", False, [])
    assert len(found.train) == 3 and {name: len(us) for name, us in found.test.items()} == {"test": 2}


def test_a_folders_hash_follows_its_content(root, tmp_path):
    before = opened(root).hash
    assert len(before) == 64 and opened(root).hash == before
    assert opened(root, train=["test"], test=["train"]).hash == before  # the same recordings
    record(root / "test" / "1" / "1" / "1-1-0000.flac", tone(2.0))
    longer = opened(root).hash
    label(root / "test" / "1" / "1", {"1-1-0000": "ANOTHER TEST", "1-1-0001": "A TEST"})
    assert len({before, longer, opened(root).hash}) == 3


def test_a_foreign_corpus_json_is_not_believed(root):
    before = opened(root).hash
    (root / "corpus.json").write_text('{"hash": "0"}')
    assert opened(root).hash == before


def test_skipped_files_of_all_splits_are_counted(root):
    for split in ("train", "test"):
        (root / split / "1" / "1" / "1-1-0000.flac").write_bytes(b"")
    with pytest.raises(UserError, match=r"1-1-0000\.flac is empty"):
        opened(root)
    found = opened(root, on_bad_audio="skip")
    assert len(found.skipped) == 2 and len(found.train) == 2 and len(found.test["test"]) == 1


def test_an_embedded_corpus(tmp_path, monkeypatch):
    folder = tmp_path / "made"
    split_of(folder, 4, "train")
    split_of(folder, 2, "test-clean")
    (folder / "corpus.json").write_text('{"hash": "abc"}')
    monkeypatch.setattr(corpus.synthetic, "make", lambda cache, utterances, seed: folder)
    found = open_corpus(None, SMALL, ["train"], ["test-clean"], "stop", tmp_path)
    assert (found.name, found.hash, found.synthetic, len(found.train)) == ("synthetic", "abc", True, 4)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"root": "/nowhere"}, "data.root=/nowhere is not a folder.*prepare.py librispeech"),
        ({"on_bad_audio": "ignore"}, "on_bad_audio=ignore must be one of stop, skip"),
        ({"train": []}, "must be lists of splits"),
        ({"test": "test-clean"}, "must be lists of splits"),
        ({"train": ["training"]}, "no split 'training'; it has train, test-clean"),
        ({"test": ["dev-clean"]}, "no split 'dev-clean'; it has train, test-clean"),
        ({"corpus": None}, "data.root must name a folder"),
        ({"corpus": {**SMALL, "voices": 3}}, "must have the settings seed and utterances"),
        ({"corpus": {"seed": 0, "utterances": {"tests": 2}}}, "no split 'tests'; it can have train, dev-clean"),
        ({"corpus": {"seed": 0, "utterances": {"train": -2}}}, r"utterances\.train=-2 must be a whole number"),
        ({"corpus": {"seed": 0, "utterances": {"train": 2.5}}}, r"utterances\.train=2\.5 must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused_with_the_choices(changes, complaint):
    settings = {"root": None, "corpus": SMALL, "train": ["train"], "test": ["test-clean"], "on_bad_audio": "stop"}
    check(**settings)
    with pytest.raises(UserError, match=complaint):
        check(**{**settings, **changes})


def test_an_unknown_split_of_a_folder_lists_its_own(root):
    with pytest.raises(UserError, match="no split 'tests'; it has test, train"):
        check(str(root), None, ["train"], ["tests"], "stop")


def test_names():
    assert corpus_name(None) == "synthetic"
    assert corpus_name("some/Where/LibriSpeech-Small") == "librispeech_small"


def test_a_folder_is_called_by_its_own_name_or_its_links(tmp_path, monkeypatch):
    (tmp_path / "My-Speech" / "train").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "My-Speech")
    monkeypatch.chdir(tmp_path / "My-Speech")
    names = [tmp_path / "My-Speech", tmp_path / "linked", ".", "train/..", f"{tmp_path}/linked/", None]
    expected = ["my_speech", "linked", "my_speech", "my_speech", "linked", "synthetic"]
    assert [corpus_name(name and str(name)) for name in names] == expected


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
    with pytest.raises(UserError, match=r"has no audio: no file in it ends in one of \.flac"):
        find(tmp_path)
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    (tmp_path / "x.trans.txt").unlink()
    with pytest.raises(UserError, match=r"no recording in .* can be read; the first: .*bad\.wav"):
        recordings(tmp_path)


def test_the_first_utterances_of_each_speaker(root):
    rng = np.random.default_rng()
    speakers = [str(number) for number in rng.integers(4, size=30)]
    made = [Utterance(str(k), "test", who, Path("x"), "A", 1.0) for k, who in enumerate(speakers)]
    kept = first_of_each(made, 3)
    wanted = [[u for u in made if u.speaker == who][:3] for who in set(speakers)]
    assert {u.id for u in kept} == {u.id for us in wanted for u in us}
    assert [u.id for u in kept] == [u.id for u in made if u in kept] and first_of_each(made, None) == made
    for bad in (0, -1, 1.5, True, "all"):
        with pytest.raises(UserError, match=f"data.utterances_per_speaker={bad} must be a whole number of 1 or more"):
            first_of_each(made, bad)
    both = open_corpus(str(root), None, ["train"], ["test"], "stop", "unused", utterances_per_speaker=1)
    assert len(both.train) == 3 and len(both.test["test"]) == 1 and both.hash == opened(root).hash
