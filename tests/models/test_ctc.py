from itertools import groupby, product

import numpy as np
import pytest
import torch
from tiny_models import LAYER_NORM, SIZES, random_model
from tiny_speech import speech_of

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)
from mpq.errors import UserError
from mpq.models import ctc, loading

torch.set_num_threads(1)


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_is_that_of_transformers(rng, zero_infinity, masked):
    """Random audio, masks and labels through transformers' own loss, which its forward computes."""
    model = random_model(ctc_loss_reduction="mean", ctc_zero_infinity=zero_infinity, **LAYER_NORM)
    lengths = torch.tensor([1_600, 1_234, 900])
    inputs = torch.from_numpy(rng.standard_normal((3, 1_600))).float()
    counts = [4, 3, 5]
    labels = torch.full((3, 5), -100)
    for row, count in enumerate(counts):
        labels[row, :count] = torch.from_numpy(rng.integers(5, 32, count))
        inputs[row, lengths[row] :] = 0
    if not masked:
        lengths = torch.full((3,), 1_600)
    mask = (torch.arange(1_600) < lengths[:, None]).long()
    theirs = model(inputs, attention_mask=mask, labels=labels).loss
    outputs = speech_of(model, True).logits(inputs, lengths)
    ours = ctc.ctc_loss(model, outputs, ctc.frames(model, lengths), labels)
    torch.testing.assert_close(ours, theirs)


def test_the_loss_is_the_probability_of_all_paths(rng):
    """Graves et al. 2006, eq. 3: the sum over all paths that collapse to the label, by enumeration."""
    model = random_model()
    frames, symbols, label = 5, 3, [1, 1, 2]
    outputs = torch.from_numpy(rng.standard_normal((1, frames, symbols)))
    probabilities = outputs[0].softmax(-1).numpy()
    total = 0.0
    for path in product(range(symbols), repeat=frames):
        if [symbol for symbol, _ in groupby(path) if symbol != model.config.pad_token_id] == label:
            total += np.prod(probabilities[range(frames), path])
    loss = ctc.ctc_loss(model, outputs, torch.tensor([frames]), torch.tensor([[*label, -100]]))
    assert loss.item() == pytest.approx(-np.log(total) / len(label), rel=1e-5)


def test_an_utterance_without_room_for_its_label_costs_nothing(rng):
    outputs = torch.from_numpy(rng.standard_normal((2, 3, 8))).float().requires_grad_()
    labels = torch.tensor([[1, 2, 3, 4], [1, -100, -100, -100]])
    loss = ctc.ctc_loss(random_model(), outputs, torch.tensor([3, 3]), labels)
    loss.backward()
    assert torch.isfinite(loss) and not outputs.grad[0].any() and outputs.grad[1].any()


@pytest.mark.parametrize("settings", [{}, LAYER_NORM, {"add_adapter": True, "num_adapter_layers": 1}])
def test_frames_are_those_of_the_output(rng, settings):
    model = random_model(**settings)
    lengths = torch.from_numpy(rng.integers(500, 4_000, 6))
    for length, count in zip(lengths.tolist(), ctc.frames(model, lengths).tolist(), strict=True):
        assert model(torch.zeros(1, length)).logits.shape[1] == count


def test_frames_of_the_real_models():
    """One frame in 20 ms, of 25 ms: 49 a second, as the papers of both models say."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    with torch.device("meta"):
        model = Wav2Vec2ForCTC(Wav2Vec2Config())
    counts = ctc.frames(model, torch.tensor([400, 719, 720, 16_000, 160_000], device="cpu"))
    assert counts.tolist() == [1, 1, 2, 49, 499]


def test_a_mask_hides_the_padding(rng):
    model = random_model(**LAYER_NORM)
    audio = torch.from_numpy(rng.standard_normal((1, 1_000))).float()
    padded = torch.nn.functional.pad(audio, (0, 600))
    count = int(ctc.frames(model, torch.tensor([1_000])))
    alone = speech_of(model, True).logits(audio, torch.tensor([1_000]))
    masked = speech_of(model, True).logits(padded, torch.tensor([1_000]))[:, :count]
    seen = speech_of(model).logits(padded, torch.tensor([1_000]))[:, :count]
    torch.testing.assert_close(masked, alone, rtol=1e-4, atol=1e-5)
    assert (seen - alone).abs().max() > 1e-3


def test_models_that_hear_features(rng):
    import transformers

    config = transformers.Wav2Vec2BertConfig(
        vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        feature_projection_input_dim=10, conv_depthwise_kernel_size=3, left_max_position_embeddings=4,
        right_max_position_embeddings=3,
    )  # fmt: skip
    model = transformers.Wav2Vec2BertForCTC(config).eval()
    inputs = torch.from_numpy(rng.standard_normal((2, 30, 10))).float()
    lengths = torch.tensor([30, 21])
    outputs = speech_of(model, True).logits(inputs, lengths)
    assert ctc.frames(model, lengths).tolist() == [30, 21] and outputs.shape[:2] == (2, 30)
    alone = speech_of(model, True).logits(inputs[1:, :21], lengths[1:])
    torch.testing.assert_close(outputs[1:, :21], alone, rtol=1e-4, atol=1e-5)


def test_from_scratch_follows_its_seed():
    architecture = {"model_type": "hubert", **SIZES}
    models = [loading.from_scratch(architecture, seed)[0] for seed in (3, 3, 4)]
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in models]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert models[0].config.vocab_size == 32 and models[0].config.pad_token_id == 0 and not models[0].training
    assert models[0].config.ctc_loss_reduction == "mean" and models[0].config.ctc_zero_infinity
    assert architecture["model_type"] == "hubert"  # not eaten


@pytest.mark.parametrize("model_type", ["wav2vec3", "bert", None])
def test_an_unknown_model_type_lists_the_known(model_type):
    with pytest.raises(UserError, match=rf"model_type={model_type} .*must be one of .*hubert, .*wav2vec2, .*wavlm"):
        loading.from_scratch({"model_type": model_type}, 0)


def test_a_model_of_features_is_not_made_from_scratch():
    with pytest.raises(UserError, match="model_type=wav2vec2-bert takes features: start from a checkpoint of it"):
        loading.from_scratch({"model_type": "wav2vec2-bert", "num_hidden_layers": 1, "hidden_size": 16}, 0)


def test_the_accelerator_can_be_refused():
    speech = speech_of(torch.nn.Linear(1, 1))
    speech.to_accelerator("cpu")
    assert speech.device.type == "cpu"
    speech.to_accelerator("auto")
    assert speech.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("settings", [{}, LAYER_NORM, {"add_adapter": True, "num_adapter_layers": 1}])
def test_audio_shorter_than_the_convolutions_reach_has_no_frame_and_no_crash(rng, settings, masked):
    """SIZES reach over 40 samples and move by 80; alone and beside a longer neighbour."""
    model = random_model(**settings)
    assert ctc.reach(model) == 40
    assert ctc.stride(model) == (160 if "add_adapter" in settings else 80)
    for lengths in ([39], [1, 7], [1, 800]):
        inputs = torch.from_numpy(rng.standard_normal((len(lengths), max(lengths)))).float()
        assert ctc.frames(model, torch.tensor(lengths))[0] == 0
        with torch.no_grad():
            assert speech_of(model, masked).logits(inputs, torch.tensor(lengths)).isfinite().all()
