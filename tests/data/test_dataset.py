import numpy as np
import pytest
import torch
from recordings import label, record, tone

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)
from mpq.data.dataset import SpeechDataset, collate, loader
from mpq.data.librispeech import Utterance
from mpq.errors import UserError
from mpq.models.ctc import CtcReader
from mpq.models.processor import letters_processor


@pytest.fixture(scope="module")
def processor():
    return letters_processor()


@pytest.fixture
def utterances(tmp_path, rng):
    made = []
    for number, text in enumerate(["A TEST", "OF FOUR", "RECORDINGS", "DON'T"]):
        path = record(tmp_path / f"{number}.flac", tone(rng.uniform(0.3, 1.0)) + 0.01 * rng.standard_normal())
        made.append(Utterance(str(number), "test", "1", path, text, 1.0))
    return made


def mute(tmp_path):
    path = record(tmp_path / "mute.wav", np.zeros(8_000))
    return Utterance("mute", "test", "1", path, "NOTHING", 0.5)


def test_items_are_what_the_processor_makes(processor, utterances):
    import soundfile

    for utterance, item in zip(utterances, SpeechDataset(utterances, CtcReader(processor), "stop"), strict=False):
        samples = soundfile.read(utterance.path, dtype="float32")[0]
        expected = processor(samples, sampling_rate=16_000, return_tensors="pt").input_values[0]
        torch.testing.assert_close(item["inputs"], expected, rtol=0, atol=0)
        assert item["inputs"].dtype == torch.float32
        assert item["labels"].tolist() == processor.tokenizer(utterance.text).input_ids
        assert processor.tokenizer.decode(item["labels"], group_tokens=False) == utterance.text
        assert item["seconds"] == len(samples) / 16_000


def test_padding(processor, utterances):
    items = [SpeechDataset(utterances, CtcReader(processor), "stop")[k] for k in range(4)]
    batch = collate(items)
    assert batch.ids == ["0", "1", "2", "3"]
    assert batch.inputs.shape == (4, max(len(item["inputs"]) for item in items)) and batch.labels.shape == (4, 10)
    assert batch.seconds == pytest.approx(sum(len(item["inputs"]) for item in items) / 16_000)
    for row, item in enumerate(items):
        length = int(batch.lengths[row])
        assert torch.equal(batch.inputs[row, :length], item["inputs"]) and not batch.inputs[row, length:].any()
        count = len(item["labels"])
        assert torch.equal(batch.labels[row, :count], item["labels"]) and (batch.labels[row, count:] == -100).all()


@pytest.mark.parametrize("seconds", [0.0, 0.25, 0.3])
def test_padding_to_a_multiple(seconds, processor, utterances):
    dataset = SpeechDataset(utterances, CtcReader(processor), "stop")
    multiple = dataset.multiple_of(seconds)
    assert multiple == (1 if seconds == 0 else seconds * 16_000)
    (plain,), (padded,) = (loader(dataset, [[0, 1, 2]], workers=0, multiple=m) for m in (1, multiple))
    length = plain.inputs.shape[1]
    assert padded.inputs.shape[1] == -(-length // multiple) * multiple
    assert torch.equal(padded.inputs[:, :length], plain.inputs) and not padded.inputs[:, length:].any()
    assert torch.equal(padded.lengths, plain.lengths) and torch.equal(padded.labels, plain.labels)


def test_an_utterance_does_not_depend_on_its_neighbours(processor, utterances):
    dataset = SpeechDataset(utterances, CtcReader(processor), "stop")
    alone = next(iter(loader(dataset, [[2]], workers=0)))
    together = next(iter(loader(dataset, [[0, 2, 3]], workers=0)))
    assert torch.equal(together.inputs[1, : alone.lengths[0]], alone.inputs[0])


def test_a_loader_keeps_the_order(processor, utterances):
    batches = [[3], [0, 2], [1]]
    loaded = list(loader(SpeechDataset(utterances, CtcReader(processor), "stop"), batches, workers=0))
    assert [batch.ids for batch in loaded] == [["3"], ["0", "2"], ["1"]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_stops_with_one_sentence(processor, utterances, tmp_path, workers):
    dataset = SpeechDataset([*utterances, mute(tmp_path)], CtcReader(processor), "stop")
    with pytest.raises(UserError, match=r"mute\.wav is silent; fix it or .*on_bad_audio=skip") as caught:
        list(loader(dataset, [[0, 1], [2, 4]], workers))
    assert len(str(caught.value).splitlines()) == 1


def test_a_bad_file_is_left_out_and_counted(processor, utterances, tmp_path):
    dataset = SpeechDataset([*utterances, mute(tmp_path)], CtcReader(processor), "skip")
    mixed, none = loader(dataset, [[2, 4], [4]], workers=0)
    assert mixed.ids == ["2"] and len(mixed.inputs) == len(mixed.labels) == len(mixed.lengths) == 1
    assert len(mixed.skipped) == len(none.skipped) == 1 and "mute.wav is silent" in none.skipped[0]
    assert none.ids == [] and none.seconds == 0 and none.inputs.shape == (0, 0)


def test_other_rates_become_the_models(processor, tmp_path):
    path = record(tmp_path / "a.wav", tone(1.0, 44_100), 44_100)
    dataset = SpeechDataset([Utterance("a", "test", "1", path, "A", 1.0)], CtcReader(processor), "stop")
    assert len(dataset[0]["inputs"]) == 16_000 and dataset[0]["seconds"] == 1.0


def test_characters_that_the_model_lacks_are_its_unknown_token(processor, utterances):
    from dataclasses import replace

    dataset = SpeechDataset([replace(utterances[0], text="É 4 A")], CtcReader(processor), "stop")
    unknown = processor.tokenizer.unk_token_id
    space, a = processor.tokenizer.convert_tokens_to_ids(["|", "A"])
    assert dataset[0]["labels"].tolist() == [unknown, space, unknown, space, a]


def test_a_token_beyond_the_models_outputs_is_refused_where_it_is_needed(processor, utterances):
    from dataclasses import replace

    dataset = SpeechDataset([*utterances, replace(utterances[0], id="5", text="a quiz")], CtcReader(processor), "stop")
    dataset.check_labels(32)
    with pytest.raises(UserError, match=r"transcript of 5 needs the token 'Q', number 30 of .* 32, .* has 28 outputs"):
        dataset.check_labels(28)
    SpeechDataset(utterances, CtcReader(processor), "stop").check_labels(28)  # none of these has a J, X, Q or Z


def test_labels_keep_the_case_of_a_vocabulary_of_both(processor, utterances, tmp_path):
    import json
    from dataclasses import replace
    from string import ascii_letters
    from types import SimpleNamespace

    from transformers import Wav2Vec2CTCTokenizer

    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *ascii_letters]
    (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), word_delimiter_token="|")
    mixed = SimpleNamespace(tokenizer=tokenizer, feature_extractor=processor.feature_extractor)
    dataset = SpeechDataset([replace(utterances[0], text="Ann met Bob")], CtcReader(mixed), "stop")
    assert tokenizer.decode(dataset[0]["labels"], group_tokens=False) == "Ann met Bob"


def test_moving_keeps_what_is_no_tensor(processor, utterances):
    batch = next(iter(loader(SpeechDataset(utterances, CtcReader(processor), "stop"), [[0, 1]], workers=0)))
    moved = batch.to("meta")
    assert {moved.inputs.device.type, moved.lengths.device.type, moved.labels.device.type} == {"meta"}
    assert (moved.ids, moved.seconds, moved.skipped) == (batch.ids, batch.seconds, batch.skipped)


def test_a_label_file_from_disk_to_tensor(processor, tmp_path):
    from mpq.data.librispeech import read_split

    record(tmp_path / "test" / "1" / "2" / "1-2-0.ogg", tone(0.7))
    label(tmp_path / "test" / "1" / "2", {"1-2-0": "READ ME"})
    dataset = SpeechDataset(read_split(tmp_path, "test").utterances, CtcReader(processor), "stop")
    assert processor.tokenizer.decode(dataset[0]["labels"], group_tokens=False) == "READ ME"
