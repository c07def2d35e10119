"""The compiled quantizers against the plain ones."""

import logging

import pytest
import torch
from torch._inductor import config as inductor

from mpq.errors import UserError
from mpq.quant import compiled
from mpq.quant.fake_quantize import fake_quantize
from mpq.quant.grid import grid
from mpq.quant.mixture import mixture


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """Choices and failures are the process's; so are the functions that were compiled."""
    monkeypatch.setattr(compiled, "_choice", "auto")
    monkeypatch.setattr(compiled, "_failed", False)
    yield
    compiled._compiled.cache_clear()


def passes(weight, scales, shares, candidates, gradient, choice):
    """The quantized weight and all gradients."""
    compiled.choose(choice)
    inputs = [tensor.clone().requires_grad_() for tensor in (weight, scales, shares)]
    grids = [grid(bits) for bits in candidates]
    alone = len(candidates) == 1
    result = fake_quantize(inputs[0], inputs[1][0], grids[0]) if alone else mixture(*inputs, grids)
    result.backward(gradient)
    return [result.detach(), *(tensor.grad for tensor in (inputs[:2] if alone else inputs))]


def compare(shape, rows, candidates):
    weight, gradient = torch.randn(shape) * 0.03, torch.randn(shape)
    scales = torch.rand(len(candidates), rows, *[1] * (len(shape) - 1)) * 0.02 + 0.002
    shares = torch.rand(len(candidates))
    plain = passes(weight, scales, shares, candidates, gradient, False)
    found = passes(weight, scales, shares, candidates, gradient, True)
    assert not compiled.failed()
    for one, other in zip(plain, found, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        # Sums of random signs nearly cancel: what counts is the error beside the largest of them.
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5 * float(one.abs().max()))
    return plain[0], found[0]


def can_compile():
    try:
        torch.compile(lambda values: values + 1, options={"compile_threads": 1})(torch.ones(2))
    except Exception as error:  # no C++ compiler, no headers of Python, ...
        print("torch.compile can't compile here:", error)
        return False
    return True


# Every shape and number of candidates is code of its own, which takes ten seconds to compile; so does each program with
# which PyTorch would try out what vector instructions there are, beyond asking the processor.
@inductor.patch("cpp.vec_isa_ok", True)
def test_compiled_kernels_compute_what_the_plain_operations_do():
    compiled.choose(True)
    fake_quantize(torch.randn(5, 7), torch.ones(5, 1), grid(4))
    if compiled.failed() and not can_compile():
        pytest.skip("torch.compile can't compile here")
    for bits in (1, 2, 3, 8):  # one version serves all grids and all matrices
        rows = int(torch.randint(2, 40, ()))
        plain, found = compare((rows, int(torch.randint(2, 90, ()))), rows, (bits,))
        assert torch.equal(plain, found)
    for shape in ((24, 70), (9, 131)):
        compare(shape, shape[0], (2, 4, 8))
    compare((8, 6, 5), 1, (4, 2))


@pytest.mark.parametrize(
    ("shape", "rows"), [((7, 12), 7), ((7, 12), 1), ((4, 3, 5), 4), ((4, 3, 5), 1), ((2, 6, 9), 1)]
)
@pytest.mark.parametrize("candidates", [(1,), (2,), (4,), (8,), (2, 4, 8), (3, 5, 6, 1)])
def test_its_formula_without_a_compiler(monkeypatch, shape, rows, candidates):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    compare(shape, rows, candidates)


def test_where_pytorch_can_not_compile_it_says_so_once_and_goes_on(monkeypatch, caplog):
    def broken(function, **_):
        def call(*_):
            raise RuntimeError("no C++ compiler\nmore")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    compiled._compiled.cache_clear()
    weight, scales, gradient = torch.randn(5, 8), torch.rand(3, 5, 1) + 0.1, torch.randn(5, 8)
    shares = torch.rand(3)
    with caplog.at_level(logging.WARNING):
        found = passes(weight, scales, shares, (2, 4, 8), gradient, True)
        again = passes(weight, scales, shares, (2, 4, 8), gradient, True)
    assert [record.getMessage().splitlines()[-1] for record in caplog.records] == [
        "the quantizers run without torch.compile, which is slower: no C++ compiler"
    ]
    assert compiled.failed()
    for plain in (passes(weight, scales, shares, (2, 4, 8), gradient, False), again):
        for one, other in zip(plain, found, strict=True):
            torch.testing.assert_close(other, one)


def test_memory_that_ends_is_not_taken_for_a_compiler_that_fails(monkeypatch):
    def full(function, **_):
        def call(*_):
            raise torch.OutOfMemoryError("CUDA out of memory")

        return call

    monkeypatch.setattr(torch, "compile", full)
    compiled._compiled.cache_clear()
    compiled.choose(True)
    with pytest.raises(torch.OutOfMemoryError):
        fake_quantize(torch.randn(2, 3), torch.ones(2, 1), grid(4))
    assert not compiled.failed()


def test_by_default_weights_on_a_gpu_alone():
    weight = torch.randn(2, 3)
    assert not compiled.wanted(weight)
    if torch.cuda.is_available():
        assert compiled.wanted(weight.cuda())
    compiled.choose(True)
    assert compiled.wanted(weight)
    compiled.choose(False)
    assert not compiled.wanted(weight)


@pytest.mark.parametrize("choice", ["yes", "on", None, 2])
def test_another_word_is_refused(choice):
    with pytest.raises(UserError, match=f"trainer.compile={choice} must be auto, true or false"):
        compiled.choose(choice)
