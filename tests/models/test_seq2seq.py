"""Sequence-to-sequence models against transformers' own loss, encoder and greedy search, on random inputs."""

import pickle

import numpy as np
import pytest
import torch
from tiny_whisper import ends_at_once, whisper
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.configuration_whisper import WhisperConfig

from mpq.errors import UserError
from mpq.models import fallback
from mpq.models.loading import load, speech_model
from mpq.models.seq2seq import Seq2SeqModel
from mpq.models.speech import Choices

TEXTS = ("Mr. A said", "so", "Twice?")


def heard(speech, rng, seconds=(0.5, 1.1, 0.8)):
    """Return the inputs of noise bursts, their lengths, and the labels of `TEXTS`."""
    made = [speech.reader.inputs(rng.standard_normal(int(16_000 * s)).astype(np.float32)) for s in seconds]
    labels = [speech.reader.labels(text) for text in TEXTS]
    padded = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    return torch.stack([inputs for inputs, _ in made]), torch.tensor([length for _, length in made]), padded


@pytest.fixture
def rng():
    return np.random.default_rng()


def test_the_loss_is_transformers_own(rng):
    model, processor = whisper()
    speech = speech_model(model, processor)
    assert isinstance(speech, Seq2SeqModel)
    inputs, lengths, labels = heard(speech, rng)
    prompt = torch.tensor([[257, 261]] * 3)  # start, no timestamps
    before = torch.cat([prompt, labels[:, :-1].masked_fill(labels[:, :-1] < 0, 0)], 1)
    wanted = torch.cat([torch.full((3, 1), -100), labels], 1)
    theirs = model(input_features=inputs.transpose(1, 2), decoder_input_ids=before, labels=wanted)
    ours = speech.logits(inputs, lengths, labels)
    positions = speech.positions(lengths, (labels >= 0).sum(-1))
    assert positions.tolist() == [len(text) + 2 for text in TEXTS]  # a space before, the end after
    assert int(speech.loss_units(positions)) == sum(positions.tolist())
    torch.testing.assert_close(speech.loss(ours, positions, labels), theirs.loss)
    real = labels >= 0
    torch.testing.assert_close(ours[real], theirs.logits[:, 1:][real])


def test_padding_changes_nothing(rng):
    speech = speech_model(*whisper())
    inputs, lengths, labels = heard(speech, rng)
    alone = speech.logits(inputs[1:2], lengths[1:2], labels[1:2, :4])
    torch.testing.assert_close(speech.logits(inputs, lengths, labels)[1:2, :4], alone, atol=1e-5, rtol=1e-4)


def test_a_short_context_is_a_model_with_fewer_positions(rng):
    model, processor = whisper()
    speech = speech_model(model, processor, Choices(margin_seconds=0.55))
    inputs, lengths, labels = heard(speech, rng)
    count = (110 + 55 + 1) // 2  # of the longest recording, the margin, and one to be even
    config = WhisperConfig.from_dict({**model.config.to_dict(), "max_source_positions": count})
    smaller = WhisperForConditionalGeneration(config)
    state = model.state_dict()
    state["model.encoder.embed_positions.weight"] = state["model.encoder.embed_positions.weight"][:count]
    smaller.load_state_dict(state)
    smaller.eval().generation_config = model.generation_config
    whole = speech_model(smaller, processor)
    wanted = whole.logits(inputs[:, : 2 * count], lengths, labels)
    torch.testing.assert_close(speech.logits(inputs, lengths, labels), wanted)
    assert speech.transcribe(inputs, lengths) == whole.transcribe(inputs[:, : 2 * count], lengths)
    assert model.config.max_source_positions == 1500 == model.model.encoder.embed_positions.num_embeddings


def test_a_gradient_reaches_every_weight_that_is_trained(rng):
    speech = speech_model(*whisper(), Choices(margin_seconds=0.1))
    speech.freeze_feature_encoder()
    inputs, lengths, labels = heard(speech, rng)
    speech.loss(speech.logits(inputs, lengths, labels), lengths, labels).backward()
    missing = [name for name, p in speech.model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    frozen = [f"model.encoder.conv{n}.{part}" for n in (1, 2) for part in ("weight", "bias")]
    # Adding a constant to all keys changes no attention; Whisper's keys have no bias.
    assert missing == [*frozen, "model.encoder.embed_positions.weight"]


def test_greedy_search_is_transformers_own(rng):
    model, processor = whisper()
    speech = speech_model(model, processor)
    inputs, lengths, _ = heard(speech, rng)
    theirs = processor.tokenizer.batch_decode(
        model.generate(inputs.transpose(1, 2), max_new_tokens=22), skip_special_tokens=True
    )
    assert speech.transcribe(inputs, lengths) == theirs


def test_a_text_that_repeats_itself_is_sampled_again_alone_and_always_alike(rng, monkeypatch):
    speech = speech_model(*whisper(), Choices(margin_seconds=0.1, fallback=True))
    inputs, lengths, _ = heard(speech, rng)
    plain = speech_model(speech.model, speech.processor, Choices(margin_seconds=0.1)).transcribe(inputs, lengths)
    monkeypatch.setattr(fallback, "repeats", lambda text: False)
    assert speech.transcribe(inputs, lengths) == plain
    monkeypatch.setattr(fallback, "repeats", lambda text: text == plain[1])
    monkeypatch.setattr(fallback, "TEMPERATURES", (0.2, 100.0))  # such random weights are sure of their tokens
    before = torch.get_rng_state()
    again = speech.transcribe(inputs, lengths)
    assert torch.equal(torch.get_rng_state(), before)
    assert again[1] != plain[1]
    assert all(again[row] == plain[row] for row in (0, 2) if plain[row] != plain[1])
    assert speech.transcribe(inputs[1:2], lengths[1:2]) == [again[1]]


def test_temperatures_rise_until_a_text_does_not_repeat_itself():
    tried = []

    def sampled(temperature):
        tried.append(temperature)
        return "so it goes " * (1 if temperature > limit else 60)

    for limit, count in ((0.5, 3), (0.1, 1), (1.0, 5)):
        tried.clear()
        text = fallback.unrepeated("so so " * 200, str, sampled)
        assert tried == list(fallback.TEMPERATURES[:count]) and fallback.repeats(text) == (limit == 1.0)
    tried.clear()
    assert fallback.unrepeated("a text, as it is", str, sampled) == "a text, as it is" and not tried


def test_a_text_that_does_not_end_is_no_label(rng):
    model, processor = whisper()
    speech = speech_model(model, processor)
    inputs, lengths, _ = heard(speech, rng)
    texts = speech.transcribe(inputs, lengths)
    tokens = model.generate(inputs.transpose(1, 2), max_new_tokens=22)
    ended = (tokens == 256).any(1).tolist()
    assert speech.labels_for_student(inputs, lengths) == [t if e else None for t, e in zip(texts, ended, strict=True)]
    assert speech_model(ends_at_once(model), processor).labels_for_student(inputs, lengths) == [""] * 3


def test_labels_are_written_as_whisper_writes():
    reader = pickle.loads(pickle.dumps(speech_model(*whisper()).reader))
    decode = reader.processor.tokenizer.decode
    assert decode(reader.labels("SAID TWICE")) == " said twice<|endoftext|>"
    assert decode(reader.labels("Mr. A said ")) == " Mr. A said<|endoftext|>"
    assert len(reader.labels("A" * 99)) == 24 - 2  # as many as there are positions


def test_texts_are_compared_in_whispers_normal_form():
    reader = speech_model(*whisper()).reader
    assert reader.normalizer == "whisper english"
    assert reader.scored(" Mr. Quilter CAN'T (hm) come.") == "mister quilter can not come"
    reader.processor.tokenizer.english_spelling_normalizer = None  # as transformers loads a folder without the file
    with pytest.raises(UserError, match=r"no normalizer\.json: add that file"):
        reader.scored("colour")


def test_rows_of_the_decoder_without_padding(rng):
    speech = speech_model(*whisper())
    positions = torch.tensor([3, 5])
    real = speech.real_rows((2, 6), positions)
    assert real.tolist() == [[True] * 4 + [False] * 2, [True] * 6]
    assert speech.real_rows((2, 1500), positions) is None


def test_a_folder_without_a_generation_config(tmp_path):
    model, processor = whisper()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    with pytest.raises(UserError, match=r"no generation config .* add the file generation_config\.json") as caught:
        speech_model(*load(str(tmp_path)))
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_without_a_tokenizer(tmp_path):
    model, processor = whisper()
    model.save_pretrained(tmp_path)
    processor.feature_extractor.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="add the tokenizer's files") as caught:
        speech_model(*load(str(tmp_path)))
    assert len(str(caught.value).splitlines()) == 1


def test_a_multilingual_model_needs_a_language():
    model, processor = whisper()
    config = model.generation_config
    config.is_multilingual = True
    config.lang_to_id, config.task_to_id = {"<|en|>": 258, "<|de|>": 100}, {"transcribe": 259}
    with pytest.raises(UserError, match=r"multilingual, .* must be one of de, en, but is None"):
        speech_model(model, processor)
    with pytest.raises(UserError, match="but is latin"):
        speech_model(model, processor, Choices(language="latin"))
    german = speech_model(model, processor, Choices(language="German"))
    assert german.prompt == [257, 100, 259, 261] and german.reader.normalizer == "whisper basic"
    assert speech_model(model, processor, Choices(language="en")).reader.normalizer == "whisper english"
