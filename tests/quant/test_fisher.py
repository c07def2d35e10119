"""The Fisher traces of a softmax regression, which are known exactly."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mpq.errors import UserError
from mpq.quant.calibration import Calibration
from mpq.quant.fisher import fisher_traces


class Regression(nn.Module):
    """Two matrices in a row, without anything between them, as a speech model of their logits."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(5, 6) / 2)
        self.second = nn.Parameter(torch.randn(7, 5) / 2, requires_grad=False)
        self.unused = nn.Parameter(torch.randn(3, 3))
        self.model = self

    def logits(self, inputs, lengths, labels):
        return inputs @ self.first.T @ self.second.T

    def positions(self, lengths, label_counts):
        return lengths


def batch(lengths):
    inputs = torch.randn(len(lengths), max(lengths), 6) * torch.rand(6) * 2
    return SimpleNamespace(
        inputs=inputs, lengths=torch.tensor(lengths), labels=None, label_counts=None, seconds=1.0, ids=["x"]
    )


def test_traces_are_the_expected_squared_gradients():
    """Of a position with input x and posteriors p: E ||(e_y - p) h'||^2 and E ||second' (e_y - p) x'||^2."""
    model, batches = Regression(), [batch([40, 25, 3]) for _ in range(40)]
    expected = torch.zeros(2)
    for one in batches:
        for inputs, length in zip(one.inputs, one.lengths.tolist(), strict=True):
            hidden = inputs[:length] @ model.first.detach().T
            p = (hidden @ model.second.T).softmax(-1)
            spread = torch.diag_embed(p) - p[:, :, None] * p[:, None]  # covariance of e_y
            through = model.second.T @ spread @ model.second
            expected[0] += (through.diagonal(dim1=1, dim2=2).sum(-1) * inputs[:length].square().sum(-1)).sum()
            expected[1] += (spread.diagonal(dim1=1, dim2=2).sum(-1) * hidden.square().sum(-1)).sum()
    expected /= sum(int(one.lengths.sum()) for one in batches)
    weights = [model.first, model.second, model.unused]
    found = fisher_traces(Calibration(model, batches), weights, int(torch.randint(1000, ())))
    torch.testing.assert_close(found[:2].float(), expected, rtol=0.2, atol=0)
    assert found[2] == 0 and [weight.requires_grad for weight in weights] == [True, False, True]
    assert all(weight.grad is None for weight in weights)


def test_outputs_that_are_not_finite_are_told():
    model = Regression()
    with torch.no_grad():
        model.first[0, 0] = torch.inf
    with pytest.raises(UserError, match="outputs on the recordings are not finite"):
        fisher_traces(Calibration(model, [batch([4])]), [model.first], 0)
