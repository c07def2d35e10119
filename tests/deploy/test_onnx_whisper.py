"""A packed Whisper as ONNX files, from end to end: against transformers, and as other programs read them."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from packed_whisper import TIMES, packed_whisper, recordings
from transformers import LogitsProcessorList
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor
from transformers.generation.utils import GenerationMixin

from mpq.deploy import compressed, export_seq2seq, runtime
from mpq.deploy.onnx_export import export
from mpq.deploy.runtime_seq2seq import DECODER, ENCODER, OnnxWhisper, cache_names, is_whisper
from mpq.errors import UserError
from mpq.models import fallback
from mpq.models.loading import speech_model
from mpq.models.processor import load_processor
from mpq.models.speech import Choices

HEADS, WIDTH, HIDDEN = 2, 8, 16
NAMES = cache_names(2)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The folder, the model in PyTorch and its processor."""
    torch.manual_seed(seed := int(np.random.SeedSequence().entropy) % 2**63)
    print("seed:", seed)
    folder = tmp_path_factory.mktemp("whisper") / "packed"
    return folder, *packed_whisper(folder, (2, 3, 4))


@pytest.fixture(scope="module")
def exported(packed):
    """The files in both layouts, from one trace, which takes most of the time."""
    trace, made = export_seq2seq.trace, []

    def once(*arguments):
        made[:] = made or [trace(*arguments)]
        return {name: program.clone() for name, program in made[0].items()}

    folder = packed[0].parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_seq2seq, "trace", once)
        made_of = {layout: export(packed[0], folder / layout, layout) for layout in ("memory", "speed")}
        return made_of | {"compressed": export(packed[0], folder / "speed_zst", "speed", compress=True)}


@pytest.fixture(scope="module")
def memory(exported):
    return exported["memory"]


@pytest.fixture(scope="module")
def speed(exported):
    return exported["speed"]


def generated(model, processor, waveforms, prompt, *rules):
    """The tokens that transformers' greedy search writes."""
    features = processor.feature_extractor(waveforms, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        made = GenerationMixin.generate(
            model,
            features,
            attention_mask=torch.ones_like(features[:, 0], dtype=torch.long),
            decoder_input_ids=torch.tensor([prompt] * len(waveforms)),
            logits_processor=LogitsProcessorList(rules),
            do_sample=False,
            max_length=model.config.max_target_positions,
        )
    end = processor.tokenizer.eos_token_id
    return [row[: row.index(end)] if end in row else row for row in made[:, len(prompt) :].tolist()]


def test_tokens_and_texts_are_transformers(packed, memory, rng):
    _, model, processor = packed
    heard = recordings(rng, 0.7, 2.2, 31)
    recognizer = OnnxWhisper(memory, threads=1, silence=30)
    prompt = speech_model(model, processor).prompt
    wanted = generated(model, processor, heard, prompt)
    assert recognizer.tokens(heard) == wanted
    assert len({token for row in wanted for token in row}) > 3  # not one token again and again
    assert recognizer.transcribe(heard) == processor.tokenizer.batch_decode(wanted, skip_special_tokens=True)
    assert recognizer.tokens(heard[:1]) == wanted[:1]
    assert recognizer.tokens([]) == []
    short = speech_model(model, processor, Choices(margin_seconds=1.5))  # as the runs hear it
    read = [short.reader.inputs(waveform) for waveform in heard[:2]]
    inputs, lengths = torch.stack([features for features, _ in read]), torch.tensor([length for _, length in read])
    texts = OnnxWhisper(memory, threads=1, silence=1.5).transcribe(heard[:2])
    assert texts == short.transcribe(inputs, lengths) != recognizer.transcribe(heard[:2])


def test_a_text_that_repeats_itself_is_sampled_again_alone_and_always_alike(memory, rng, monkeypatch):
    heard = recordings(rng, 0.7, 2.2)
    greedy, recognizer = OnnxWhisper(memory, threads=1), OnnxWhisper(memory, threads=1, fallback=True)
    plain = greedy.transcribe(heard)
    monkeypatch.setattr(fallback, "repeats", lambda text: True)
    monkeypatch.setattr(fallback, "TEMPERATURES", (1e-6,))  # at which the likeliest token is all that is drawn
    assert recognizer.tokens(heard, times=True) == [greedy.tokens([one], times=True)[0] for one in heard]
    monkeypatch.setattr(fallback, "repeats", lambda text: text == plain[1])
    monkeypatch.setattr(fallback, "TEMPERATURES", (1e-6, 100.0))
    again = recognizer.transcribe(heard)
    assert again[1] != plain[1] and (again[0] == plain[0] or plain[0] == plain[1])
    assert recognizer.transcribe(heard[1:]) == again[1:]


def test_times_are_transformers(packed, memory, rng):
    _, model, processor = packed
    heard = recordings(rng, 3, 1.5)
    about = model.generation_config
    rule = WhisperTimeStampLogitsProcessor(about, begin_index=1)
    wanted = generated(model, processor, heard, [about.decoder_start_token_id], rule)
    recognizer = OnnxWhisper(memory, threads=1, silence=30)
    assert recognizer.tokens(heard, times=True) == wanted
    assert all(row[0] > about.no_timestamps_token_id for row in wanted)
    for segments, row in zip(recognizer.segments(heard), wanted, strict=True):
        text = processor.tokenizer.decode(row, skip_special_tokens=True)
        assert "".join(one.text for one in segments) == text
        assert all(0 <= one.start <= one.end <= 3 for one in segments)


def test_compressed_files_are_the_same_model(exported, rng):
    plain, folder = exported["speed"], exported["compressed"]
    for name in (ENCODER, DECODER):
        content = (plain / name).read_bytes()
        assert compressed.read(folder / f"{name}.zst") == content and not (folder / name).exists()
    heard = recordings(rng, 0.7)
    assert is_whisper(folder) and OnnxWhisper(folder).tokens(heard) == OnnxWhisper(plain).tokens(heard)
    cut = shutil.copytree(folder, folder.parent / "cut_zst")
    (cut / f"{DECODER}.zst").write_bytes((folder / f"{DECODER}.zst").read_bytes()[:9_000])
    refused(cut, rf"{DECODER}\.zst is damaged, so export or copy it again: ")
    shutil.copy(plain / DECODER, cut)  # as zstd -d restores it
    assert OnnxWhisper(cut).description.layout == "speed"


@pytest.mark.parametrize(("layout", "tolerance"), [("memory", 1e-4), ("speed", 0.1)])
@pytest.mark.parametrize("frames", [44, 3_000])
def test_the_encoder_is_pytorchs_for_any_number_of_frames(layout, tolerance, frames, packed, rng, request):
    _, model, processor = packed
    features = rng.standard_normal((2, 80, frames)).astype(np.float32)
    found = session(request.getfixturevalue(layout) / ENCODER).run(None, {"input_features": features})[0]
    speech = speech_model(model, processor, Choices(margin_seconds=0.0))
    inputs, lengths = torch.from_numpy(features).transpose(1, 2), torch.tensor([frames, frames])
    with torch.no_grad(), speech._context(inputs, lengths) as heard:
        wanted = model.get_encoder()(heard).last_hidden_state.numpy()
    assert np.sqrt(((found - wanted) ** 2).mean()) < tolerance * wanted.std()


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if "speed" in str(path.parent) and runtime.saturates():
        runtime.add_exactly(options)
    return onnxruntime.InferenceSession(path, options)


def step(decoder, tokens, hidden, past):
    """The decoder's outputs, by name; `past` is None in the first step, or its shape `(batch, length)`."""
    later = isinstance(past, dict)
    before = past if later else dict.fromkeys(NAMES, np.ones((past[0], HEADS, past[1], WIDTH), dtype=np.float32))
    inputs = {"input_ids": tokens, "encoder_hidden_states": hidden, "use_cache_branch": np.array([later])}
    names = [output.name for output in decoder.get_outputs()]
    return dict(zip(names, decoder.run(None, inputs | before), strict=True))


@pytest.mark.parametrize(("layout", "tolerance"), [("memory", 1e-4), ("speed", 0.1)])
def test_logits_are_pytorchs_in_the_first_step_and_later(layout, tolerance, packed, rng, request):
    _, model, _ = packed
    decoder = session(request.getfixturevalue(layout) / DECODER)
    tokens, hidden = rng.integers(0, 256, (2, 6)), rng.standard_normal((2, 9, HIDDEN)).astype(np.float32)
    first = step(decoder, tokens[:, :4], hidden, (0, 0))
    past = {name: first[name.replace("past_key_values", "present")] for name in NAMES}
    later = step(decoder, tokens[:, 4:], 0 * hidden, past)  # what the encoder heard comes from the past
    with torch.no_grad():
        wanted = model(encoder_outputs=(torch.from_numpy(hidden),), decoder_input_ids=torch.from_numpy(tokens)).logits
    found = np.concatenate([first["logits"], later["logits"]], axis=1)
    assert np.sqrt(((found - wanted.numpy()) ** 2).mean()) < tolerance * wanted.std().item()
    for name, value in later.items():
        assert "encoder" not in name or value.size == 0  # readers keep those of the first step
        assert "decoder" not in name or value.shape == (2, HEADS, 6, WIDTH)


def test_a_first_step_takes_no_notice_of_the_past(memory, rng):
    decoder = session(memory / DECODER)
    tokens, hidden = rng.integers(0, 256, (2, 3)), rng.standard_normal((2, 5, HIDDEN)).astype(np.float32)
    wanted = step(decoder, tokens, hidden, (0, 0))  # as onnx-asr calls it
    for past in [(2, 0), (2, 1), (2, 7)]:  # transformers.js and Optimum, older versions of Optimum
        found = step(decoder, tokens, hidden, past)
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("layout", ["memory", "speed"])
def test_each_weight_is_stored_once_at_its_bits(layout, packed, request):
    path, stored = request.getfixturevalue(layout), {}
    sites = json.loads((packed[0] / "config.json").read_text())["quantization_config"]["sites"]
    for file in (ENCODER, DECODER):
        model = onnx.load(path / file)
        onnx.checker.check_model(model)
        assert ("Attention" in {node.op_type for node in model.graph.node}) == (file == DECODER)
        branches = [attribute.g for node in model.graph.node for attribute in node.attribute if attribute.g.node]
        assert len(branches) == (4 if file == DECODER else 0)  # of two layers
        for tensor in (tensor for graph in (model.graph, *branches) for tensor in graph.initializer):
            if tensor.data_type == onnx.TensorProto.FLOAT:  # biases, scales, and the learned and fixed positions
                assert len(tensor.raw_data) <= 4 * max(262 + TIMES, 1_500 * HIDDEN)
            elif tensor.name.removesuffix("_codes") in sites:
                assert tensor.name not in stored
                stored[tensor.name] = len(tensor.raw_data)
    for name, site in sites.items():
        size, bits = np.prod(site["shape"]), min(n for n in (2, 4, 8) if n >= site["bits"])
        found = [stored[key] for key in (name, f"{name}_codes") if key in stored]
        assert len(found) == 1 and found[0] >= size * bits // 8
        assert found[0] <= -(-size * bits // 8) or layout == "memory"  # blocks are filled up there


def test_the_files_are_those_that_other_programs_read(packed, speed):
    files = {file.name for file in speed.iterdir()}
    assert files >= {ENCODER, DECODER, "config.json", "generation_config.json", "preprocessor_config.json"}
    assert files >= {"tokenizer.json", "tokenizer_config.json", "vocab.json", "added_tokens.json", "normalizer.json"}
    config = json.loads((speed / "config.json").read_text())
    assert "extra_special_tokens" not in json.loads((speed / "tokenizer_config.json").read_text())  # of transformers 5
    tokenizer = load_processor(speed).tokenizer
    assert tokenizer.all_special_ids == packed[2].tokenizer.all_special_ids
    assert config["num_mel_bins"] == 80 and config["model_type"] == "whisper" and "quantization_config" not in config
    tokens = json.loads((speed / "vocab.json").read_text()) | json.loads((speed / "added_tokens.json").read_text())
    assert sorted(tokens.values()) == list(range(262 + TIMES))
    assert tokens["<|startoftranscript|>"] == packed[1].generation_config.decoder_start_token_id
    assert tokens["<|30.00|>"] == 262 + TIMES - 1


def broken(folder, name, change):
    """A copy of the exported `folder` in which `change` was made to the ONNX file `name`."""
    copy = shutil.copytree(folder, folder.parent / f"broken_{len(list(folder.parent.iterdir()))}")
    model = onnx.load(copy / name)
    change(model)
    onnx.save(model, copy / name)
    return copy


def describe(model, **fields):
    entry = json.loads(next(one.value for one in model.metadata_props if one.key == "mpq"))
    onnx.helper.set_model_props(model, {"mpq": json.dumps(entry | fields)})


def changed(path, **fields):
    model = onnx.load(path)
    describe(model, **fields)
    return model


def refused(folder, told, **options):
    with pytest.raises(UserError, match=told) as caught:
        OnnxWhisper(folder, **options)
    assert "\n" not in str(caught.value)


def test_what_does_not_belong_together_is_refused_in_a_sentence(memory, speed):
    missing = shutil.copytree(memory, memory.parent / "missing")
    (missing / DECODER).unlink()
    refused(missing, f"lacks {DECODER}: export the model again")
    cut = shutil.copytree(memory, memory.parent / "cut")
    (cut / DECODER).write_bytes((memory / DECODER).read_bytes()[:9_000])
    refused(cut, f"{DECODER} is not an ONNX file that can be loaded")
    mixed = shutil.copytree(memory, memory.parent / "mixed")
    shutil.copy(speed / DECODER, mixed / DECODER)
    refused(mixed, "are of two exports")
    words = shutil.copytree(memory, memory.parent / "words")
    (words / "vocab.json").write_text("{")
    refused(words, "has a damaged vocab.json")
    for name in (ENCODER, DECODER):
        refused(broken(memory, name, lambda model: describe(model, layout="tiny")), "layout tiny, which must be one of")
        refused(broken(memory, name, lambda model: describe(model, version=1)), "not written by this version of mpq")
    heads = broken(memory, ENCODER, lambda model: describe(model, heads=4, width=4))
    onnx.save(changed(heads / DECODER, heads=4, width=4), heads / DECODER)
    refused(memory, "silence=-1 must be at least 0 seconds", silence=-1)
    refused(heads, "the cache of .* does not fit: the model has 2 layers of 4 heads of width 4")
    with pytest.raises(UserError, match="one of the two files of a Whisper: name its folder"):
        runtime.OnnxRecognizer(memory / ENCODER)


def test_a_multilingual_model_is_told_the_language(memory, rng, caplog):
    tongues = {"languages": {"en": 258, "de": 258}, "transcribe": 259}
    folder = broken(memory, ENCODER, lambda model: describe(model, **tongues))
    onnx.save(changed(folder / DECODER, **tongues), folder / DECODER)
    for language in (None, "english"):
        refused(folder, f"multilingual, and language= must be one of de, en, but is {language}", language=language)
    OnnxWhisper(memory, "de", threads=1)
    assert caplog.messages == ["language= has no effect here: the model is for one language"]
    heard = recordings(rng, 1)
    with pytest.raises(UserError, match="NaN or infinite values"):  # of the recording, not of the model
        OnnxWhisper(memory, threads=1).tokens([np.full_like(heard[0], np.nan)])
    assert OnnxWhisper(folder, "en", threads=1).tokens(heard) != OnnxWhisper(memory, threads=1).tokens(heard)


def test_only_an_earlier_export_is_replaced(packed, memory, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for output in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match="must be a folder that is new, empty or of an earlier export"):
            export(packed[0], output)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
