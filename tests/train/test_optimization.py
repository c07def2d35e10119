import pytest
import torch

from mpq.errors import UserError
from mpq.train.optimization import Optimization


def optimization(**changes):
    values = {
        "updates": 40,
        "audio_seconds": 3.0,
        "learning_rate": 1e-2,
        "scale_learning_rate": 1e-2,
        "weight_decay": 0.0,
        "warmup": 0.1,
        "decay": 0.5,
        "clip": 1.0,
        "interval": 4,
        "accumulate": 1,
        "dropout": False,
        "train_feature_encoder": False,
        "workers": 0,
    }
    return Optimization(**{**values, **changes})


@pytest.mark.parametrize("rate", [None, 0.0, 3e-3])
def test_matrices_vectors_and_scales_have_rates_of_their_own(rate):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    model.register_parameter("log_scales", torch.nn.Parameter(torch.zeros(4, 1)))
    optimizer = optimization(scale_learning_rate=0.5, vector_learning_rate=rate).optimizer(model, [])
    rates = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    of_vectors = 1e-2 if rate is None else rate
    expected = {"0.weight": 1e-2, "0.bias": of_vectors, "1.weight": of_vectors, "1.bias": of_vectors, "log_scales": 0.5}
    assert {name: rates[parameter] for name, parameter in model.named_parameters()} == expected


@pytest.mark.parametrize("updates", [1, 2, 7, 40, 241])
def test_the_rate_warms_up_stands_and_ends_at_zero(updates):
    settings = optimization(updates=updates)
    optimizer = settings.optimizer(torch.nn.Linear(2, 1), [])
    schedule = settings.schedule(optimizer)
    rates = []
    for _ in range(updates):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.0
    assert max(rates) == 1e-2
    highest = [step for step, rate in enumerate(rates) if rate == 1e-2]
    assert highest == list(range(highest[0], highest[-1] + 1))
    assert rates[: highest[0]] == sorted(rates[: highest[0]])
    assert rates[highest[-1] :] == sorted(rates[highest[-1] :], reverse=True)
    if updates == 40:
        assert (highest[0], highest[-1]) == (4, 20)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("updates", -1, "trainer.updates=-1 must be a whole number, 0 or more"),
        ("updates", 2.5, "trainer.updates=2.5 must be a whole number"),
        ("interval", 0, "trainer.interval=0 must be a whole number, 1 or more"),
        ("accumulate", True, "trainer.accumulate=True must be a whole number"),
        ("workers", -1, "data.workers=-1 must be a whole number"),
        ("audio_seconds", 0, "trainer.audio_seconds=0 must be a number, above 0"),
        ("learning_rate", float("nan"), "trainer.learning_rate=nan must be a number, 0 or more"),
        ("vector_learning_rate", -1e-4, "trainer.vector_learning_rate=-0.0001 must be a number, 0 or more"),
        ("clip", "off", "trainer.clip=off must be a number, 0 or more"),
        ("dropout", "no", "trainer.dropout=no must be true or false"),
        ("decay", 0.95, "their sum must be at most 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, value, told):
    with pytest.raises(UserError) as refused:
        optimization(**{name: value})
    assert told in str(refused.value)
