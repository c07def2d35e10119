"""Models that take features: the same numbers as with transformers' own processor, and recordings of any length."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from family_folders import family_folder
from transformers import AutoModelForCTC, AutoProcessor

from mpq.data.audio import Recording
from mpq.deploy.chunks import chunked_logits
from mpq.deploy.transcribe import open_recognizer
from mpq.errors import UserError
from mpq.models import ctc, loading
from mpq.models.loading import speech_model
from mpq.models.processor import inputs, labels

STRIDES = {"wav2vec2_bert": 320, "parakeet": 1280, "lasr": 640, "granite_speech": 640}  # samples a frame
RATE = 16_000


@pytest.fixture(scope="module", params=STRIDES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return family_folder(tmp_path_factory.mktemp("model") / family, family)


def noise(seconds):
    return np.random.default_rng().standard_normal(round(seconds * RATE)).astype(np.float32)


def transformers_own(folder, waveforms):
    """The frames of each recording, and its text, as transformers computes them for a batch."""
    model, processor = AutoModelForCTC.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    batch = processor(waveforms, sampling_rate=RATE, return_tensors="pt", padding=True, return_attention_mask=True)
    with torch.no_grad():
        logits = model(**batch).logits
    lengths = batch["attention_mask"].sum(-1)
    counts = ctc.frames(model, lengths).tolist()
    found = [row[:count] for row, count in zip(logits, counts, strict=True)]
    pieces = "▁" in processor.tokenizer.get_vocab()
    return found, [processor.decode(row.argmax(-1), skip_special_tokens=pieces) for row in found]


def test_a_batch_gives_the_logits_and_the_text_of_transformers(folder, family):
    """Granite's extractor mirrors the end of the audio, so its last frames depend on the batch: there one by one."""
    speech = speech_model(*loading.load(str(folder)))
    waveforms = [noise(seconds) for seconds in np.random.default_rng().uniform(0.4, 1.5, 3)]
    heard = [speech.reader.inputs(waveform)[0] for waveform in waveforms]
    lengths = torch.tensor([len(values) for values in heard])
    padded = torch.nn.utils.rnn.pad_sequence(heard, batch_first=True)
    with torch.no_grad():
        logits = speech.logits(padded, lengths)
        texts = speech.transcribe(padded, lengths)
    groups = [[waveform] for waveform in waveforms] if family == "granite_speech" else [waveforms]
    theirs = [transformers_own(folder, group) for group in groups]
    assert texts == [text for _, said in theirs for text in said]
    for row, count, want in zip(
        logits, speech.frames(lengths), (row for found, _ in theirs for row in found), strict=True
    ):
        torch.testing.assert_close(row[:count], want, rtol=1e-3, atol=1e-3)


def test_labels_are_the_characters_alone(folder):
    _, processor = loading.load(str(folder))
    numbers = labels(processor, "AB C")
    assert processor.tokenizer.decode(numbers, group_tokens=False).strip() == "AB C"
    assert not {processor.tokenizer.eos_token_id, processor.tokenizer.unk_token_id} & set(numbers.tolist())


def test_frames_of_a_long_recording_are_those_of_its_chunks_and_no_chunk_is_longer_than_asked(folder, family):
    """So memory is bounded, whatever the length."""
    recognizer = open_recognizer(str(folder), "cpu")
    assert recognizer.step == STRIDES[family]
    samples = noise(np.random.default_rng().uniform(20, 22))
    blocks = np.array_split(samples, 5)
    parts = chunked_logits(recognizer.logits, blocks, len(samples), 4 * RATE, RATE, recognizer.step)
    assert sum(len(part) for part in parts) == len(recognizer.logits(samples))
    heard = []

    def logits(chunk):
        heard.append(len(chunk))
        return recognizer.logits(chunk)

    replace(recognizer, logits=logits).transcribe(Recording(len(samples), blocks), 4.0, 1.0)
    assert len(heard) > 5 and max(heard) <= 4 * RATE


def test_the_shortest_recordings(folder):
    recognizer = open_recognizer(str(folder), "cpu")
    for samples in (1, 100, 399, 400, 401, 1_000):
        assert np.isfinite(recognizer.logits(noise(samples / RATE))).all()


def test_a_frame_of_each_stride(folder, family):
    """A second more of audio is as many frames more as `stride` says."""
    speech = speech_model(*loading.load(str(folder)))
    short, long = (speech.frames(torch.tensor([len(inputs(speech.processor, noise(s)))])) for s in (2, 34))
    assert int(long - short) == 32 * RATE // speech.stride


def test_a_blank_beyond_the_head_is_refused(tmp_path):
    folder = family_folder(tmp_path / "model", "parakeet")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"pad_token_id": 29', '"pad_token_id": 30'))
    with pytest.raises(UserError, match=r"has no CTC blank: pad_token_id=30 .* must be one of the head's 30 outputs"):
        loading.load(str(folder))
