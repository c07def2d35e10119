"""Downloading LibriSpeech from a made-up server: what is missing, what was interrupted, what is damaged."""

import io
import tarfile
from urllib.error import URLError

import pytest

import mpq  # noqa: F401  (before torchaudio: it makes it importable)
from mpq.data import prepare
from mpq.errors import UserError


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
