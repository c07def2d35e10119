import json
import shutil
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import edit_config, lower_case_processor, random_model, saved

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)
from mpq.errors import UserError
from mpq.models import loading
from mpq.models.hub import check_available
from mpq.models.processor import letters_processor


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """A Hub cache of this test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "model", random_model())


def refused(path) -> str:
    with pytest.raises(UserError) as caught:
        loading.load(str(path))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("model_type", ["wav2vec2", "hubert", "wavlm"])
def test_loads_what_save_pretrained_wrote(tmp_path, model_type):
    model = random_model(model_type)
    again, processor = loading.load(str(saved(tmp_path / "model", model)))
    assert not again.training and type(again) is type(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert again.dtype == torch.float32 and again.config.ctc_zero_infinity
    assert processor.tokenizer.get_vocab() == letters_processor().tokenizer.get_vocab()


def test_a_half_precision_checkpoint_becomes_float32(tmp_path):
    model, _ = loading.load(str(saved(tmp_path / "model", random_model().half())))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_lower_case_vocabulary(tmp_path):
    _, processor = loading.load(str(saved(tmp_path / "model", random_model(), lower_case_processor(tmp_path))))
    assert "e" in processor.tokenizer.get_vocab() and "E" not in processor.tokenizer.get_vocab()


def test_no_config(folder):
    (folder / "config.json").unlink()
    assert "has no config.json" in refused(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "has no weights" in refused(folder)


def test_no_processor(tmp_path):
    message = refused(saved(tmp_path / "model", random_model(), processor=False))
    assert "add the files that its processor's save_pretrained writes" in message


def test_no_tokenizer(folder):
    for name in ("vocab.json", "tokenizer_config.json", "processor_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    letters_processor().feature_extractor.save_pretrained(folder)
    assert "add the files that its processor's save_pretrained writes" in refused(folder)


def test_no_ctc_head(tmp_path):
    """A pre-trained model, whose config says what it is, and one whose config claims a head that is not there."""
    folder = saved(tmp_path / "model", random_model().wav2vec2)
    assert "not fine-tuned for speech recognition (CTC, or sequence to sequence): its config.json names" in refused(
        folder
    )
    edit_config(folder, architectures=None, vocab_size=32)
    assert "not fine-tuned for CTC: its weights lack lm_head" in refused(folder)


def test_no_speech_model(tmp_path):
    config = transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    folder = saved(tmp_path / "model", transformers.BertModel(config))
    assert "not fine-tuned for speech recognition" in refused(folder)
    edit_config(folder, architectures=None)
    assert "not a CTC speech model that transformers can load" in refused(folder)


def test_other_sizes_than_the_config_says(folder):
    edit_config(folder, hidden_size=18)
    assert refused(folder).endswith("the shapes of its weights differ from those in its config.json")


@pytest.mark.parametrize("changes", [{"num_attention_heads": 0}, {"hidden_act": "no"}, {"quantization_config": [1]}])
def test_a_config_that_no_model_can_be_built_from(folder, changes):
    edit_config(folder, **changes)
    assert "is not a CTC speech model that transformers can load: " in refused(folder)


def test_damaged_files(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "second")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000])
    assert f"the weights of {folder} are damaged or truncated: " in refused(folder)
    (tmp_path / "second" / "config.json").write_text("{")
    assert "config.json is damaged" in refused(tmp_path / "second")


def test_an_unknown_name_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "neither a folder nor in the local Hub cache (HF_HUB_OFFLINE): run `hf download" in refused(
        "someone/no-model"
    )


def test_a_folder_that_is_not_there():
    """What can't be a name on the Hub is taken for a path, and nobody is sent to download it."""
    for path in ("/not/a/folder/here", "./here", "no/folder/here", "here/", "~/here", "c:\\here"):
        assert refused(path).startswith(f"there is no folder {path}: name one that save_pretrained wrote")


def test_a_name_in_a_folder_that_is_here_is_not_to_be_downloaded(empty_cache, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    assert "hf download" in refused("quantized/model")
    (tmp_path / "quantized").mkdir()
    assert "hf download" not in refused("quantized/model")


def cached(hub, folder, name="someone/model", files=("*",)):
    """Lay `folder` out as the Hub's cache does."""
    place = hub / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    for path in (path for pattern in files for path in folder.glob(pattern)):
        shutil.copy(path, snapshot)


def test_a_cached_model_needs_no_network(empty_cache, folder, monkeypatch):
    cached(empty_cache, folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "socket", None)  # whoever asks the network fails
    model, _ = loading.load("someone/model")
    assert model.config.vocab_size == 32


def test_a_partly_cached_model_is_not_there(empty_cache, folder):
    cached(empty_cache, folder, files=("config.json",))
    assert "in the local Hub cache without model.safetensors" in refused("someone/model")


@pytest.fixture
def hub(monkeypatch):
    """A server that stands in for the Hub; set its `answer` to (status, headers), or None to never answer."""

    class Handler(BaseHTTPRequestHandler):
        answer = None
        done = threading.Event()

        def do_GET(self):
            if Handler.answer is None:
                Handler.done.wait(30)
                return
            body = json.dumps({"id": "someone/model", "error": "no"}).encode()
            self.send_response(Handler.answer[0])
            for name, value in {**Handler.answer[1], "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", endpoint)
    yield Handler
    Handler.done.set()
    server.shutdown()


def test_the_hub_has_it(hub):
    hub.answer = (200, {"Content-Type": "application/json"})
    check_available("someone/model")


def test_the_hub_has_it_not(hub):
    hub.answer = (404, {"X-Error-Code": "RepoNotFound"})
    with pytest.raises(UserError, match="the Hub has no model someone/model, or it is private"):
        check_available("someone/model")


def test_the_hub_never_answers(hub, monkeypatch):
    monkeypatch.setattr("mpq.models.hub._HUB_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"the Hub gave no answer \(ReadTimeout\)"):
        check_available("someone/model")
    assert time.monotonic() - start < 20  # one wait of half a second, and no retries for minutes


def test_there_is_no_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the Hub gave no answer"):
        check_available("someone/model")


@pytest.fixture
def in_cache(empty_cache, folder):
    """A model in the Hub cache, as acme/asr at one commit that the branch main and the tag v1 name."""
    root, commit = empty_cache / "models--acme--asr", "a" * 40
    for name in ("main", "v1"):
        (root / "refs").mkdir(parents=True, exist_ok=True)
        (root / "refs" / name).write_text(commit)
    shutil.copytree(folder, root / "snapshots" / commit)
    return root / "snapshots" / commit


@pytest.mark.parametrize("name", ["acme/asr", "acme/asr@v1", "acme/asr@" + "a" * 40])
def test_a_revision_in_the_cache_is_loaded_from_there(in_cache, name):
    assert loading.load(name)[0].config.model_type == "wav2vec2"


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "preprocessor_config.json", "vocab.json"])
def test_a_half_filled_cache_is_not_taken_for_the_model(in_cache, monkeypatch, missing):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    patterns = {"vocab.json": ("vocab*", "tokenizer.json"), "preprocessor_config.json": ("*processor_config.json",)}
    for pattern in patterns.get(missing, (missing,)):
        for file in in_cache.glob(pattern):
            file.unlink()
    assert f"in the local Hub cache without {missing}" in refused("acme/asr@v1")
    assert "hf download acme/asr --revision v1" in refused("acme/asr@v1")


def test_a_missing_weight_file_of_several_is_named(in_cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (in_cache / "model.safetensors").rename(in_cache / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (in_cache / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert "without model-00002-of-00002.safetensors" in refused("acme/asr")


def test_a_revision_is_asked_of_the_hub(monkeypatch):
    asked = {}

    class Api:
        def model_info(self, name, **more):
            asked.update(name=name, **more)
            raise ConnectionError

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert "acme/asr@v2" in refused("acme/asr@v2")
    assert (asked["name"], asked["revision"]) == ("acme/asr", "v2")


def test_a_pretrained_encoder_gets_a_new_head(tmp_path):
    encoder = random_model("hubert").hubert
    folder = saved(tmp_path / "encoder", encoder, processor=False)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    given = {"model_type": "hubert", "pretrained": str(folder), "mask_time_prob": 0.123}
    models = [loading.from_scratch(given, seed) for seed in (3, 3, 4)]
    heads = [model.lm_head.weight for model, _ in models]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2]) and heads[0].std() > 0
    for model, processor in models:
        assert all(torch.equal(model.hubert.state_dict()[name], want) for name, want in encoder.state_dict().items())
        assert len(processor.tokenizer) == model.config.vocab_size == 32 and model.config.mask_time_prob == 0.123
        assert processor.feature_extractor.return_attention_mask and not model.training
    weights = load_file(folder / "model.safetensors")
    save_file({name: w for name, w in weights.items() if "feed_forward" not in name}, folder / "model.safetensors")
    for pretrained, told in ((folder, r"lacks hubert\.encoder\."), (tmp_path / "none", "can't be loaded: ")):
        with pytest.raises(UserError, match=f"pretrained={pretrained} {told}"):
            loading.from_scratch({**given, "pretrained": str(pretrained)}, 0)
    with pytest.raises(UserError, match="is for CTC models"):
        loading.from_scratch({"model_type": "whisper", "pretrained": str(folder)}, 0)
