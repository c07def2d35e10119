import pickle
from collections import OrderedDict

import pytest
import torch

from mpq.errors import UserError
from mpq.train.checkpoint_io import SafetensorsCheckpointIO

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int8, torch.uint8, torch.bool)


def nested():
    """What Lightning's checkpoints are made of, with fresh numbers."""
    weight = torch.randn(3, 5)
    return {
        "state_dict": OrderedDict(weight=weight, alias=weight, row=weight[1], turned=weight.t()),
        "optimizer_states": [{"state": {0: {"step": torch.tensor(7.0)}, 12: {"exp_avg": torch.randn(2)}}, "lr": 1e-3}],
        "dtypes": {str(dtype): (torch.randn(4) * 9).to(dtype) for dtype in DTYPES},
        "empty": {"tensor": torch.zeros(0, 3), "list": [], "dict": {}, "tuple": ()},
        "loops": {"betas": (0.9, 0.999), "nested": [(1, None), [True, "text", float("inf")]], "epoch": 3},
    }


def assert_same(got, want):
    assert type(got) is (dict if isinstance(want, dict) else type(want))
    if isinstance(want, torch.Tensor):
        assert got.dtype == want.dtype and torch.equal(got, want)
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            assert_same(got[key], want[key])
    elif isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_same(one, other)
    else:
        assert got == want


def save(tmp_path, content):
    path = tmp_path / "folder" / "last.safetensors"
    SafetensorsCheckpointIO().save_checkpoint(content, path)
    return path


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    want = nested()
    path = save(tmp_path, want)
    assert_same(SafetensorsCheckpointIO().load_checkpoint(path), want)
    assert [file.name for file in path.parent.iterdir()] == ["last.safetensors"]


def test_what_comes_back_shares_no_memory_with_itself_or_the_model(tmp_path):
    content = nested()
    path = save(tmp_path, content)
    content["state_dict"]["weight"].zero_()
    got = SafetensorsCheckpointIO().load_checkpoint(path)["state_dict"]
    assert got["weight"].any()
    got["weight"].zero_()
    assert got["alias"].any() and got["row"].any() and got["turned"].any()


def test_nothing_is_pickled(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a pickle was made or read")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    path = save(tmp_path, nested())
    SafetensorsCheckpointIO().load_checkpoint(path)
    content = path.read_bytes()
    assert content[8:9] == b"{" and not content.startswith(b"PK") and b"\x80\x02" not in content[:8]


@pytest.mark.parametrize("foreign", [{1, 2}, object(), torch.float32, {(1, 2): 3}, {None: 1}])
def test_anything_else_is_refused_and_nothing_is_written(tmp_path, foreign):
    with pytest.raises(TypeError, match="a checkpoint can't hold"):
        save(tmp_path, {"callbacks": [foreign]})
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_failed_write_keeps_the_checkpoint_before(tmp_path):
    want = nested()
    path = save(tmp_path, want)
    with pytest.raises(TypeError):
        save(tmp_path, {"bad": object()})
    assert_same(SafetensorsCheckpointIO().load_checkpoint(path), want)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path, share):
    path = save(tmp_path, nested())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"last\.safetensors is damaged .* delete it"):
        SafetensorsCheckpointIO().load_checkpoint(path)


def test_one_wrong_byte_anywhere_is_noticed(tmp_path):
    path = save(tmp_path, nested())
    content = path.read_bytes()
    places = torch.randperm(len(content))[:200].tolist()
    print("places", places)
    for place in places:
        broken = bytearray(content)
        broken[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(broken))
        try:
            got = SafetensorsCheckpointIO().load_checkpoint(path)
        except UserError:
            continue
        # A bit of the header that carries nothing, such as a space that pads it.
        path.write_bytes(content)
        assert_same(got, SafetensorsCheckpointIO().load_checkpoint(path))


def test_removing_a_checkpoint_that_is_gone_is_no_error(tmp_path):
    path = save(tmp_path, nested())
    SafetensorsCheckpointIO().remove_checkpoint(path)
    SafetensorsCheckpointIO().remove_checkpoint(path)
    assert not path.exists()
