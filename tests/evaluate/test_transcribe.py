"""Greedy transcription against transformers' processor and pipeline, one recording at a time."""

import json

import numpy as np
import pytest
import soundfile
import torch
import transformers

import mpq  # noqa: F401  (before transformers' models: it makes torchaudio importable)
from mpq.data.librispeech import Utterance
from mpq.errors import UserError
from mpq.evaluate.transcribe import transcribe
from mpq.models.ctc import CtcModel
from mpq.models.processor import letters_processor

torch.set_num_threads(1)
GROUP_NORM = {"feat_extract_norm": "group"}
LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}


def talkative_model(**settings):
    """A random model whose likeliest character changes from frame to frame, so that it writes something."""
    sizes = {"conv_dim": (8, 12), "conv_kernel": (10, 4), "conv_stride": (10, 8)}
    config = transformers.Wav2Vec2Config(
        **sizes | settings, vocab_size=32, pad_token_id=0, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = transformers.Wav2Vec2ForCTC(config)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=2.0)
        model.lm_head.bias.normal_()
        model.lm_head.bias[:4] = -100.0  # no special tokens
    return model.eval()


def processor_of(attention_mask: bool):
    processor = letters_processor()
    processor.feature_extractor.return_attention_mask = attention_mask
    return processor


@pytest.fixture
def utterances(tmp_path):
    rng = np.random.default_rng()
    made = []
    for number in range(7):
        samples = rng.standard_normal(int(rng.integers(3_000, 20_000))) * 0.1
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
        made.append(Utterance(str(number), "test", "1", path, "A TEST", len(samples) / 16_000))
    return made


def by_hand(model, processor, utterance):
    samples, rate = soundfile.read(utterance.path, dtype="float32")
    inputs = processor(samples, sampling_rate=rate, return_tensors="pt")
    with torch.inference_mode():
        return processor.batch_decode(model(inputs.input_values).logits.argmax(-1))[0]


@pytest.mark.parametrize("settings", [GROUP_NORM, LAYER_NORM])
def test_one_at_a_time_is_what_the_processor_writes(utterances, settings):
    model, processor = talkative_model(**settings), processor_of(settings is LAYER_NORM)
    found, skipped = transcribe(CtcModel(model, processor), utterances, audio_seconds=0.01)
    assert list(found) == [utterance.id for utterance in utterances] and not skipped
    assert found == {utterance.id: by_hand(model, processor, utterance) for utterance in utterances}
    assert all(len(text) > 3 for text in found.values())


def test_it_is_what_transformers_pipeline_writes(utterances):
    model, processor = talkative_model(**LAYER_NORM), processor_of(True)
    pipeline = transformers.pipeline(
        "automatic-speech-recognition", model=model, tokenizer=processor.tokenizer, device="cpu",
        feature_extractor=processor.feature_extractor,
    )  # fmt: skip
    found, _ = transcribe(CtcModel(model, processor), utterances[:2], audio_seconds=0.01)
    for utterance in utterances[:2]:
        samples, rate = soundfile.read(utterance.path, dtype="float32")
        assert found[utterance.id] == pipeline({"raw": samples, "sampling_rate": rate})["text"]


def test_with_a_mask_batches_do_not_matter(utterances):
    model, processor = talkative_model(**LAYER_NORM), processor_of(True)
    alone, _ = transcribe(CtcModel(model, processor), utterances, audio_seconds=0.01)
    together, _ = transcribe(CtcModel(model, processor), utterances, audio_seconds=100.0)
    same = sum(alone[name] == together[name] for name in alone)
    assert same >= 6  # a tie of two characters may fall the other way


def test_of_equal_length_batches_do_not_matter_without_a_mask(tmp_path):
    made = []
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * np.random.standard_normal(8_000), 16_000, subtype="FLOAT")
        made.append(Utterance(str(number), "test", "1", tmp_path / f"{number}.wav", "A", 0.5))
    model, processor = talkative_model(**GROUP_NORM), processor_of(False)
    alone, _ = transcribe(CtcModel(model, processor), made, audio_seconds=0.01)
    together, _ = transcribe(CtcModel(model, processor), made, audio_seconds=100.0)
    assert sum(alone[name] == together[name] for name in alone) >= 2


def test_no_frame_of_the_padding_is_read(utterances):
    """A hypothesis has no more characters than the recording has frames."""
    from mpq.models import ctc

    model, processor = talkative_model(**GROUP_NORM), processor_of(False)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()
        model.lm_head.bias[5] = 1.0  # every frame says E, padding too
    processor.tokenizer.decode = lambda tokens, **_: "E" * len(tokens)
    found, _ = transcribe(CtcModel(model, processor), utterances, audio_seconds=100.0)
    for utterance in utterances:
        frames = int(ctc.frames(model, torch.tensor([round(utterance.seconds * 16_000)])))
        assert len(found[utterance.id]) == frames


def test_hypotheses_are_upper_case(utterances, tmp_path):
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"etaonihsrdlumwcfgypbvk'xjqz"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    model, upper = talkative_model(**GROUP_NORM), processor_of(False)
    lower = transformers.Wav2Vec2Processor(
        feature_extractor=upper.feature_extractor,
        tokenizer=transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), word_delimiter_token="|"),
    )
    assert by_hand(model, lower, utterances[0]).islower()
    found, want = (transcribe(CtcModel(model, processor), utterances, 30.0) for processor in (lower, upper))
    assert found == want


def test_bad_files_stop_or_are_counted(utterances):
    soundfile.write(utterances[2].path, np.zeros(8_000), 16_000)
    model, processor = talkative_model(**GROUP_NORM), processor_of(False)
    with pytest.raises(UserError, match=r"2\.wav is silent.*on_bad_audio=skip"):
        transcribe(CtcModel(model, processor), utterances, 1.0)
    found, skipped = transcribe(CtcModel(model, processor), utterances, 1.0, on_bad_audio="skip")
    assert list(found) == ["0", "1", "3", "4", "5", "6"]
    assert len(skipped) == 1 and "2.wav is silent" in skipped[0]
    with pytest.raises(UserError, match=r"none of the 1 files can be transcribed; the first: .*2\.wav is silent"):
        transcribe(CtcModel(model, processor), utterances[2:3], 1.0, on_bad_audio="skip")


def test_a_killed_transcription_goes_on_with_the_batches_that_it_lacks(utterances):
    speech = CtcModel(talkative_model(**GROUP_NORM), processor_of(False))
    whole, _ = transcribe(speech, utterances, 1.5)
    kept = {}

    def killed_after_two(made):
        kept.update(made)
        if len(batches := [*batches_kept, made]) == 2:
            raise KeyboardInterrupt
        batches_kept[:] = batches

    batches_kept: list[dict[str, str]] = []
    with pytest.raises(KeyboardInterrupt):
        transcribe(speech, utterances, 1.5, keep=killed_after_two)
    assert 2 <= len(kept) < len(utterances)
    later = {}
    marked = {name: f"{text}!" for name, text in kept.items()}
    found, _ = transcribe(speech, utterances, 1.5, known=marked, keep=later.update)
    assert list(found) == list(whole) and found == whole | marked  # in the same batches, which this model hears
    assert later.keys() == whole.keys() - kept.keys()


def test_dropout_is_off_and_nothing_is_learned(utterances):
    model, processor = talkative_model(**GROUP_NORM, hidden_dropout=0.5), processor_of(False)
    model.train()
    first = transcribe(CtcModel(model, processor), utterances, 5.0)
    model.train()
    assert transcribe(CtcModel(model, processor), utterances, 5.0) == first
    assert all(parameter.grad is None for parameter in model.parameters())


def test_audio_shorter_than_the_convolutions_reach_is_heard_as_nothing(tmp_path):
    """A model that wants 0.26 s a frame: three tenths are enough, a tenth is not, together or alone."""
    model, processor = talkative_model(conv_kernel=(10, 413), conv_stride=(10, 8)), processor_of(False)
    made = []
    for number, samples in enumerate((4_800, 1_600)):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * np.random.standard_normal(samples), 16_000, subtype="FLOAT")
        made.append(Utterance(str(number), "test", "1", tmp_path / f"{number}.wav", "A", samples / 16_000))
    for audio_seconds in (0.01, 100.0):
        found, _ = transcribe(CtcModel(model, processor), made, audio_seconds)
        assert found["0"] and found["1"] == ""
