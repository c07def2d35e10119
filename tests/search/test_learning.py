"""Learned precisions on a problem whose best assignment is known: loss = sum of curvature * (mixture's error)^2."""

import numpy as np
import pytest
import torch
from examples import sites_of

from mpq.search.allocate import allocate
from mpq.search.assignment import average_bits
from mpq.search.gumbel import GumbelSearch

CANDIDATES = (2, 4, 8)
ERRORS = 2.0 ** -np.array(CANDIDATES)  # of a weight rounded to so many bits


@pytest.mark.parametrize("target", [2.5, 3, 3.5, 4, 5])
@pytest.mark.parametrize("hard", [False, True])
def test_one_run_lands_on_its_target_near_the_best_assignment(target, hard):
    seed = round(target * 10)  # a problem of its own for each target
    rng = np.random.default_rng(seed)
    sites, curvature = sites_of(rng.choice([64, 256, 1024], 20)), rng.lognormal(0, 2, 20)
    sizes = np.array([site.numel for site in sites])
    search = GumbelSearch(CANDIDATES, logit_learning_rate=0.1, freeze_at=1.0, hard=hard)
    search.bind(sites, target, seed)
    optimiser = torch.optim.Adam(search.parameter_groups())
    steepness, errors = torch.tensor(curvature).float(), torch.tensor(ERRORS).float()
    for step in range(150):
        loss = (steepness * (search.start_step(step, 150) @ errors) ** 2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assignment = search.assignment()
    assert target - 0.1 < average_bits(assignment, sites) <= target

    def loss_of(bits):
        return float((curvature * 4.0 ** -np.array(bits)).sum())

    best = loss_of(allocate(-np.outer(curvature, ERRORS**2), sizes, CANDIDATES, target))
    unlearned = loss_of(allocate(np.zeros((20, 3)), sizes, CANDIDATES, target))
    assert loss_of(list(assignment.values())) < best + 0.3 * (unlearned - best)
    assert loss_of(list(assignment.values())) < 1.5 * best
