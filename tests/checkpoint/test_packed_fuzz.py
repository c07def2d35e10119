"""Mutated folders are refused with a UserError or give exactly the same weights; nothing else ever happens."""

import json
import random

import pytest
from tiny_packed import edit_config, equal_states, quantized, state, tiny_model, uneven
from tiny_whisper import tiny_whisper

from mpq.checkpoint.packed import load_packed, save_packed
from mpq.errors import UserError

CASES = 120  # of each kind and model


@pytest.fixture(scope="module", params=["wav2vec2", "whisper", "coded"])
def original(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "packed"
    model = tiny_whisper()[0] if request.param == "whisper" else tiny_model("wav2vec2_group")
    if request.param == "coded":
        uneven(model)
    coding = "zstd" if request.param == "coded" else "none"
    save_packed(folder, quantized(model, (4, 8, 2), granularity="per_channel"), coding=coding)
    version = json.loads((folder / "config.json").read_text())["quantization_config"]["format_version"]
    assert version == (2 if request.param == "coded" else 1)
    return folder, state(load_packed(folder)[0])


def mutate(data: bytes, chance: random.Random, end: int) -> bytes:
    """Return `data` with one to three changes among its first `end` bytes."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(min(end, len(changed)))
        kind = chance.choice(["flip", "byte", "digit", "insert", "delete", "cut", "double"])
        if kind == "flip":
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == "byte":
            changed[place] = chance.randrange(256)
        elif kind == "digit":
            changed[place] = ord(chance.choice("0123456789"))
        elif kind == "insert":
            changed[place:place] = chance.randbytes(chance.randint(1, 8))
        elif kind == "delete":
            del changed[place : place + chance.randint(1, 8)]
        elif kind == "cut":
            del changed[max(place, 1) :]
        else:
            changed[place:place] = changed[place : place + 50]
    return bytes(changed)


@pytest.mark.parametrize(
    ("file", "end"), [("model.safetensors", 1 << 40), ("model.safetensors", 3000), ("config.json", 1 << 40)]
)
def test_mutated_bytes(original, file, end):
    folder, weights = original
    data = (folder / file).read_bytes()
    chance = random.Random(f"{file} {end}")
    refused = 0
    try:
        for _ in range(CASES):
            (folder / file).write_bytes(mutate(data, chance, end))
            try:
                model, _ = load_packed(folder)
            except UserError:
                refused += 1
            else:
                assert equal_states(state(model), weights)
    finally:
        (folder / file).write_bytes(data)
    assert refused > CASES * 0.8  # the rest changed nothing that counts: white space, or a byte to itself


VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    7,
    8,
    9,
    18,
    0.0,
    0.5,
    -0.0,
    1e300,
    10**6,
    10**30,
    "",
    "a",
    [],
    [18, 18],
    {},
]


def places(value, path=()):
    """Every place in a JSON value, as the keys that lead there."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def test_configs_changed_and_signed_again(original):
    """Whoever can write the checksums can change weights, but still cannot crash the loader or make it take memory."""
    folder, _ = original
    text = (folder / "config.json").read_text()
    chance = random.Random(0)
    everywhere = list(places(json.loads(text)))
    refused = 0
    try:
        for _ in range(CASES):
            (folder / "config.json").write_text(text)
            *path, last = chance.choice(everywhere)
            value = chance.choice(VALUES)

            def change(config, path=path, last=last, value=value):
                for key in path:
                    config = config[key]
                config[last] = value

            edit_config(folder, change)
            try:
                load_packed(folder)
            except UserError:
                refused += 1
    finally:
        (folder / "config.json").write_text(text)
    assert refused > CASES // 3
