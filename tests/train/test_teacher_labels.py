"""Texts by the teacher: made once, kept, remade where damaged, and the corpus's own where it does not end."""

from contextlib import nullcontext

import numpy as np
import pytest
from tiny_speech import write_speech
from tiny_whisper import ends_at_once, whisper

from mpq.data.dataset import SpeechDataset, loader
from mpq.data.librispeech import read_split
from mpq.errors import UserError
from mpq.models.loading import speech_model
from mpq.models.seq2seq import Seq2SeqModel
from mpq.models.speech import Choices
from mpq.train.teacher_labels import TeacherLabels


@pytest.fixture
def utterances(tmp_path):
    return read_split(write_speech(tmp_path / "speech", {"train": 4}, np.random.default_rng()), "train").utterances


@pytest.fixture
def written(monkeypatch):
    """How many utterances the teacher has transcribed; it never ends the texts of the last two."""
    count = []

    def labels(self, inputs, lengths):
        count.extend(lengths.tolist())
        return ["Mr. A"] * len(lengths)

    monkeypatch.setattr(Seq2SeqModel, "labels_for_student", labels)
    return count


def labels_of(dataset, batches):
    decode = dataset.reader.processor.tokenizer.decode
    found = {}
    for batch in loader(dataset, batches, 0):
        found |= {name: decode(row[row >= 0]) for name, row in zip(batch.ids, batch.labels, strict=True)}
    return list(found.values())


def labeller(teacher, folder, data="data", **choices):
    speech = speech_model(*teacher, Choices(margin_seconds=1.0, **choices))
    return speech, TeacherLabels(speech, folder, data, "cpu", nullcontext)


def test_texts_are_made_once_for_the_utterances_needed(tmp_path, utterances, written):
    teacher = whisper()
    for _ in range(2):  # the second time by another process, so to speak
        speech, labels = labeller(teacher, tmp_path)
        dataset = SpeechDataset(utterances, speech.reader, "stop", labels)
        assert labels_of(dataset, [[1, 0]]) == [" Mr. A<|endoftext|>"] * 2
        assert len(written) == 2
    assert labels_of(dataset, [[0, 3], [1, 0]]) and len(written) == 3
    (folder,) = tmp_path.glob("transcripts-*")
    (folder / f"{utterances[0].id}.json").write_text('{"text":')  # damaged
    speech, labels = labeller(teacher, tmp_path)
    labels_of(SpeechDataset(utterances, speech.reader, "stop", labels), [[0, 1]])
    assert len(written) == 4


def test_texts_of_another_teacher_or_other_data_are_made_anew(tmp_path, utterances, written):
    teacher = whisper()
    for number, (made, data) in enumerate([(teacher, "a"), (teacher, "b"), (whisper(), "a")], start=1):
        speech, labels = labeller(made, tmp_path, data)
        labels_of(SpeechDataset(utterances, speech.reader, "stop", labels), [[0]])
        assert len(written) == number


def test_the_teachers_own_greedy_text_or_the_transcript(tmp_path, utterances):
    model, processor = whisper()
    speech, labels = labeller((model, processor), tmp_path)
    dataset = SpeechDataset(utterances, speech.reader, "stop", labels)
    batch = next(iter(loader(SpeechDataset(utterances, speech.reader, "stop"), [[0, 1, 2, 3]], 0)))
    own = speech.labels_for_student(batch.inputs, batch.lengths)
    texts = [u.text if text is None else text for u, text in zip(utterances, own, strict=True)]
    wanted = [speech.reader.labels(text).tolist() for text in texts]
    found = next(iter(loader(dataset, [[0, 1, 2, 3]], 0)))
    assert [row[row >= 0].tolist() for row in found.labels] == wanted
    speech, labels = labeller((ends_at_once(model), processor), tmp_path)
    assert labels_of(SpeechDataset(utterances, speech.reader, "stop", labels), [[0]]) == [" <|endoftext|>"]


def test_bad_audio(tmp_path, utterances, written):
    utterances[2].path.write_bytes(b"")
    speech, labels = labeller(whisper(), tmp_path)
    with pytest.raises(UserError, match="fix it or skip"):
        list(loader(SpeechDataset(utterances, speech.reader, "stop", labels), [[0, 2]], 0))
    skipping = SpeechDataset(utterances, speech.reader, "skip", labels)
    (batch,) = loader(skipping, [[0, 2]], 0)
    assert batch.ids == [utterances[0].id] and len(batch.skipped) == 1
