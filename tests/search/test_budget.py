"""The budget by construction: met at every temperature, and differentiated through its multiplier."""

import pytest
import torch

from mpq.search.budget import solve

CANDIDATES = (2, 4, 8)


def average(lambdas, sizes, candidates=CANDIDATES):
    bits = lambdas.detach().double() @ torch.tensor(candidates, dtype=torch.float64)
    return float((bits * sizes).sum() / sizes.sum())


def example(kind, count=40):
    logits = torch.randn(count, 3)
    if kind == "equal":
        logits = torch.full((count, 3), 0.7)
    if kind == "extreme":
        logits = logits * 1e4
    if kind == "forbidden":
        logits[: count // 4, 0] = -torch.inf
        logits[: count // 8, 1] = -torch.inf
    return logits, torch.randint(10, 10**6, (count,))


@pytest.mark.parametrize("temperature", [5.0, 1.0, 0.3, 0.1, 0.05])
@pytest.mark.parametrize("kind", ["random", "equal", "extreme", "forbidden"])
@pytest.mark.parametrize("target", [3.5, 4.0, 5.3, 7.9])
def test_the_average_is_the_target(kind, temperature, target):
    logits, sizes = example(kind)
    noise = -torch.empty_like(logits).exponential_().log()
    for given in (None, noise):
        lambdas = solve(logits, sizes, CANDIDATES, target, temperature, given)
        assert torch.isfinite(lambdas).all()
        torch.testing.assert_close(lambdas.sum(-1), torch.ones(len(logits)))
        assert average(lambdas, sizes) == pytest.approx(target, rel=1e-6)


@pytest.mark.parametrize("temperature", [2.0, 0.1])
def test_bits_may_differ_from_site_to_site(temperature):
    """As coded bits do; a site at which two candidates take nearly the same is no trouble."""
    logits, sizes = example("random")
    bits = torch.tensor(CANDIDATES) * torch.empty(len(logits), 1).uniform_(0.7, 1)
    bits[0] = torch.tensor([1.9, 1.9 + 1e-9, 6.0])
    logits.requires_grad_()
    lambdas = solve(logits, sizes, bits, 3.5, temperature)
    taken = (lambdas.detach().double() * bits).sum(-1)
    assert float((taken * sizes).sum() / sizes.sum()) == pytest.approx(3.5, rel=1e-6)
    (gradient,) = torch.autograd.grad((lambdas * torch.arange(3)).sum(), logits)
    step = torch.zeros_like(logits, dtype=torch.float64)
    step[5, 1] = 1e-4
    ends = [solve(logits.detach().double() + sign * step, sizes, bits, 3.5, temperature) for sign in (1, -1)]
    slope = float(((ends[0] - ends[1]) * torch.arange(3)).sum() / 2e-4)
    assert float(gradient[5, 1]) == pytest.approx(slope, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("target", [2.0, 2.001, 8.0])
def test_the_ends_of_the_range(target):
    logits, sizes = example("random")
    logits.requires_grad_()
    lambdas = solve(logits, sizes, CANDIDATES, target, 0.1)
    assert average(lambdas, sizes) == pytest.approx(target, rel=1e-6)
    lambdas.square().sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_one_site_and_one_candidate():
    assert average(solve(torch.randn(1, 3), torch.tensor([7]), CANDIDATES, 3.5, 0.5), torch.tensor([7])) == (
        pytest.approx(3.5, rel=1e-6)
    )
    assert solve(torch.randn(4, 1), torch.ones(4), (4,), 4.0, 0.5).tolist() == [[1.0]] * 4


def test_the_probabilities_are_a_softmax_with_one_price_per_bit():
    logits, sizes = torch.randn(6, 3, dtype=torch.float64), torch.randint(1, 9, (6,))
    lambdas = solve(logits, sizes, CANDIDATES, 3.1, 0.7)
    price = (logits - 0.7 * lambdas.log()).diff(dim=-1) / torch.tensor([2.0, 4.0])
    torch.testing.assert_close(price, price[0, 0].expand(6, 2))


@pytest.mark.parametrize("temperature", [2.0, 0.4, 0.15])
def test_the_gradient_is_that_of_the_implicit_function(temperature):
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(5, 3, dtype=torch.float64)
    sizes = torch.tensor([10, 3, 40, 7, 7])

    def lambdas(a):
        return solve(a, sizes, CANDIDATES, 3.3, temperature, noise)

    assert torch.autograd.gradcheck(lambdas, (logits,), eps=1e-6, atol=1e-5)


def test_no_gradient_moves_the_average():
    logits, sizes = example("random")
    logits.requires_grad_()
    lambdas = solve(logits, sizes, CANDIDATES, 3.5, 0.5)
    bits = lambdas @ torch.tensor([2.0, 4.0, 8.0])
    (bits * sizes / sizes.sum()).sum().backward()
    assert logits.grad.abs().max() < 1e-6
