"""Arranging the corpora of scale mini: made-up recordings in the layouts of both downloads, read as a run does."""

import io
import json
import random
import shutil
import tarfile
from urllib.error import URLError

import pytest
from recordings import label, record, tone

import mpq  # noqa: F401  (before torchaudio: it makes it importable)
from mpq.data import prepare
from mpq.data.corpus import open_corpus
from mpq.errors import UserError

SPEAKERS = {
    "librispeech-mini": {"train": [61, 121], "dev": [1995], "test": [237]},
    "speechocean762": {"train": [1, 2022], "test": [3]},
}


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """A test-clean with a speaker too many, and a speechocean762 with one; every utterance its own length."""
    monkeypatch.setattr(prepare, "_SPEAKERS", tmp_path / "speakers.json")
    (tmp_path / "speakers.json").write_text(json.dumps(SPEAKERS))
    clean, ocean = tmp_path / "LibriSpeech" / "test-clean", tmp_path / "speechocean762"
    lengths = (0.2 + 0.01 * number for number in range(99))
    for speaker in (61, 121, 237, 908, 1995):
        chapter = clean / str(speaker) / "70"
        names = [f"{speaker}-70-{number:04d}" for number in range(2)]
        for name in names:
            record(chapter / f"{name}.flac", tone(next(lengths)))
        label(chapter, {name: f"A TEST OF {name}" for name in names})
    for split, speakers in (("train", (1, 2022)), ("test", (3, 4))):
        tables = {"text": [], "utt2spk": [], "wav.scp": []}
        for speaker in speakers:
            for number in (11, 35):
                name, path = f"{speaker:05d}{number:04d}", f"WAVE/SPEAKER{speaker:04d}/{speaker:05d}{number:04d}.WAV"
                record(ocean / path, tone(next(lengths)), format="WAV", subtype="PCM_16")
                for table, value in (("text", f"we call {name}"), ("utt2spk", f"{speaker:04d}"), ("wav.scp", path)):
                    tables[table].append(f"{name}\t{value}\n")
        (ocean / split).mkdir()
        for table, lines in tables.items():
            random.shuffle(lines)
            (ocean / split / table).write_text("".join(lines))
    return clean, ocean


def test_both_corpora_are_read_as_arranged(downloads, tmp_path):
    root = tmp_path / "data" / "mini"
    counts = prepare.arrange_mini(root, *downloads)
    assert counts == {f"{corpus}/{split}": 2 * len(who) for corpus, s in SPEAKERS.items() for split, who in s.items()}
    test = ["librispeech-mini/test", "speechocean762/test"]
    corpus = open_corpus(str(root), None, ["librispeech-mini/train", "speechocean762/train"], test, "stop", tmp_path)
    assert {utterance.speaker for utterance in corpus.train} == {"61", "121", "1", "2022"}
    assert {name: [u.id for u in found] for name, found in corpus.test.items()} == {
        "librispeech-mini/test": ["237-70-0000", "237-70-0001"],
        "speechocean762/test": ["3-0-0011", "3-0-0035"],
    }
    (one,) = (u for u in corpus.train if u.id == "2022-0-0035")
    assert one.text == "WE CALL 020220035" and one.path.resolve().name == "020220035.WAV"
    assert one.seconds == pytest.approx(0.33)  # the fourteenth recording made
    with pytest.raises(UserError, match="librispeech-mini already exists: remove it"):
        prepare.arrange_mini(root, *downloads)


def test_what_is_no_such_corpus_is_refused_and_nothing_is_left(downloads, tmp_path):
    clean, ocean = downloads
    for arguments, told in (
        ((tmp_path / "no", ocean), "must be LibriSpeech's test-clean"),
        ((clean, clean), "must be speechocean762 with train/text, train/utt2spk, train/wav.scp"),
    ):
        with pytest.raises(UserError, match=told):
            prepare.arrange_mini(tmp_path / "data", *arguments)
    next((clean / "61" / "70").glob("*.flac")).unlink()
    with pytest.raises(
        UserError, match=r"the audio file .*/61-70-000\d\.flac is missing, although it has a transcript"
    ):
        prepare.arrange_mini(tmp_path / "data", clean, ocean)
    shutil.rmtree(clean / "61")
    with pytest.raises(UserError, match="must have speaker 61 for its split train"):
        prepare.arrange_mini(tmp_path / "data", clean, ocean)
    assert not list((tmp_path / "data").glob("*"))


@pytest.fixture
def server(monkeypatch):
    """Stands in for openslr.org; a list of what was asked of it."""
    import torchaudio.datasets.librispeech as theirs

    asked = []

    def fetch(url, archive, hash_prefix):
        asked.append(url)
        with tarfile.open(archive, "w:gz") as tar:
            for name in ("84-1-0000.flac", "84-1.trans.txt"):
                entry = tarfile.TarInfo(f"LibriSpeech/{url.split('/')[-1].split('.')[0]}/84/1/{name}")
                entry.size = 5
                tar.addfile(entry, io.BytesIO(b"12345"))

    monkeypatch.setattr(theirs, "download_url_to_file", fetch)
    return asked


def test_gets_what_is_missing(tmp_path, server):
    folder = prepare.download_librispeech(tmp_path, ["dev-clean", "test-clean"])
    assert folder == tmp_path / "LibriSpeech"
    assert len(server) == 2 and "dev-clean.tar.gz" in server[0]
    assert (folder / "dev-clean" / "84" / "1" / "84-1.trans.txt").read_text() == "12345"
    assert not list((tmp_path / ".download").glob("*.tar.gz"))
    prepare.download_librispeech(tmp_path, ["dev-clean", "test-clean"])
    assert len(server) == 2


def test_goes_on_after_a_kill(tmp_path, server):
    """A file that was half unpacked would be left as it is by torchaudio."""
    half = tmp_path / ".download" / "LibriSpeech" / "dev-clean" / "84" / "1" / "84-1-0000.flac"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"12")
    folder = prepare.download_librispeech(tmp_path, ["dev-clean"])
    assert (folder / "dev-clean" / "84" / "1" / "84-1-0000.flac").read_bytes() == b"12345"


def test_no_network_is_told_in_a_sentence(tmp_path, monkeypatch):
    import torchaudio.datasets.librispeech as theirs

    def fetch(url, archive, hash_prefix):
        raise URLError("Name or service not known")

    monkeypatch.setattr(theirs, "download_url_to_file", fetch)
    with pytest.raises(UserError, match=r"dev-clean could not be downloaded .*put dev-clean\.tar\.gz into"):
        prepare.download_librispeech(tmp_path, ["dev-clean"])
    assert not (tmp_path / "LibriSpeech").exists()


def test_a_damaged_archive_is_told(tmp_path, server):
    (tmp_path / ".download").mkdir()
    (tmp_path / ".download" / "dev-clean.tar.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="could not be downloaded"):
        prepare.download_librispeech(tmp_path, ["dev-clean"])
    prepare.download_librispeech(tmp_path, ["dev-clean"])  # the damaged one is gone


def test_unknown_splits_list_the_known(tmp_path):
    with pytest.raises(UserError, match=r"no split 'dev-clear'; it has train-clean-100, .*test-other"):
        prepare.download_librispeech(tmp_path, ["dev-clean", "dev-clear"])


def test_the_splits_are_torchaudios():
    from torchaudio.datasets.librispeech import _DATA_SUBSETS

    assert set(prepare.SPLITS) == set(_DATA_SUBSETS)
