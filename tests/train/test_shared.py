"""Networks that share their weights: what an update's gradient is, and which networks an update has."""

import numpy as np
import pytest
import torch
from tiny_speech import ARCHITECTURE, speech_of
from tiny_stage import QUANTIZER, load, module_of, optimization, train
from tiny_whisper import whisper

from mpq.data.dataset import Batch
from mpq.errors import UserError
from mpq.models import loading
from mpq.models.divergence import kl_divergence
from mpq.models.seq2seq import Seq2SeqModel
from mpq.quant.quantizer import FLOAT_BITS
from mpq.quant.sites import attach, find_sites, quantizers_of
from mpq.search.assignment import average_bits
from mpq.search.gumbel import GumbelSearch
from mpq.train.loss import Loss, Share
from mpq.train.module import TrainingModule
from mpq.train.precisions import Precisions
from mpq.train.rules import check_shared_stage
from mpq.train.shared import Shared, SharedUpdate, drawn

CANDIDATES = (2, 4, 8)


def ctc():
    torch.manual_seed(seed := torch.seed() % 2**32)
    return speech_of(loading.from_scratch(ARCHITECTURE, seed)[0]), torch.randn(2, 12_000), [12_000, 8_000]


def seq2seq():
    speech = Seq2SeqModel(*whisper())
    return speech, torch.randn(2, 400, 80), [400, 300]


def prepared(make):
    """Teacher, student with quantizers, its search and precisions, all in float64, and a batch."""
    teacher, inputs, lengths = make()
    student = teacher.copy()
    sites, search = find_sites(student.model), GumbelSearch(CANDIDATES, freeze_at=1.0)
    search.bind([site for site in sites if site.searched], 3.5, seed=4)
    torch.nn.init.normal_(search.logits)
    precisions = Precisions(search, attach(student.model, sites, CANDIDATES, QUANTIZER))
    for module in (teacher.model, student.model, search):
        module.double()
    labels = torch.randint(5, 30, (2, 6))
    labels[1, 4:] = -100
    return teacher, student, precisions, Batch(["a", "b"], inputs.double(), torch.tensor(lengths), labels, 1.0, [])


def gradients(model, loss):
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None}


@pytest.mark.parametrize(("make", "full_precision"), [(ctc, "frozen"), (ctc, "trained"), (seq2seq, "frozen")])
def test_the_gradient_of_an_update_is_the_sum_over_its_networks(monkeypatch, make, full_precision):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the losses, too, in float64
    teacher, student, precisions, batch = prepared(make)
    share = Share(torch.rand(()).double(), torch.rand(()).double())
    loss, shared = Loss(0.7, 1.3, 2.0, teacher), Shared((2, 8, "random"), full_precision=full_precision)
    networks, use = [], Precisions.use
    monkeypatch.setattr(Precisions, "use", lambda self, network: (networks.append(network), use(self, network)))
    for parameter in student.model.parameters():
        parameter.grad = None
    update = SharedUpdate(shared, precisions, student, loss)
    targets, told = update.add(batch, share, 5, lambda value: value.backward())
    assert networks == ([FLOAT_BITS] if full_precision == "trained" else []) + [2, 8, networks[-2], None]
    assert {key.partition("/")[0] for key in told} == {"2bit", "8bit", "random"} | (
        {"32bit"} if full_precision == "trained" else set()
    )

    want: dict[str, torch.Tensor] = {}
    reference = teacher.targets(batch.inputs, batch.lengths, batch.labels)
    for network in networks[:-1]:
        other = student.copy()  # with quantizers of its own
        for name, quantizer in Precisions(precisions.search, quantizers_of(other.model)).__dict__["_searched"].items():
            bits = network if isinstance(network, int) else network[name]
            quantizer.lambdas = torch.tensor([float(bits == b) for b in CANDIDATES]).double()
        if network == FLOAT_BITS:
            use(Precisions(precisions.search, quantizers_of(other.model)), FLOAT_BITS)
        outputs = other.logits(batch.inputs, batch.lengths, batch.labels)
        positions = other.positions(batch.lengths, batch.label_counts)
        value = 0.7 * share.loss_units * other.loss(outputs, positions, batch.labels)
        if network == FLOAT_BITS:
            reference = outputs.detach()
        else:
            value = value + 1.3 * share.positions * kl_divergence(outputs, reference, positions, 2.0)
        for name, gradient in gradients(other.model, value).items():
            want[name] = want.get(name, 0) + gradient
    torch.testing.assert_close(targets, reference)
    found = {name: p.grad for name, p in student.model.named_parameters() if p.grad is not None}
    norm = max(float(gradient.abs().max()) for gradient in want.values())
    for name, gradient in want.items():
        torch.testing.assert_close(found.get(name, torch.zeros_like(gradient)), gradient, rtol=1e-9, atol=1e-10 * norm)
    assert found.keys() <= want.keys() and norm > 0


def test_the_optimizer_gets_the_gradients_of_all_networks(model_folder, speech_folder, tmp_path, monkeypatch):
    """Through Lightning, with two batches an update: the mixture's gradient alone, plus those of the others."""
    teacher, dataset = load(model_folder, speech_folder)
    settings = optimization(updates=1, clip=0.0, accumulate=2)
    seen: list[dict[str, torch.Tensor]] = []

    def before_step(self, optimizer):
        seen.append({name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None})

    monkeypatch.setattr(TrainingModule, "on_before_optimizer_step", before_step)

    def gradients_of(shared, bits=None):
        module = module_of(teacher, dataset, settings, GumbelSearch(freeze_at=1.0), shared=shared)
        if bits:
            module._precisions.use(bits)
        seen.clear()
        train(module, settings, tmp_path / f"{shared is None}{bits}")
        (found,) = seen
        return dict(found)

    got = gradients_of(Shared((2,)))
    parts = [gradients_of(None, bits) for bits in (None, 2)]
    for name, gradient in got.items():
        want = sum(part.get(name, torch.zeros_like(gradient)) for part in parts)
        torch.testing.assert_close(gradient, want, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()) + 1e-8)


def test_the_networks_of_an_update_follow_from_the_seed_and_the_update():
    _, _, precisions, _ = prepared(ctc)
    update = SharedUpdate(Shared((2, 4, 8, "random"), each_update=2), precisions, None, None)
    drawn_at = [list(update._networks(step)) for step in range(16)]
    assert drawn_at == [list(update._networks(step)) for step in range(16)]
    assert all(len(networks) == 2 for networks in drawn_at)
    assert {name for networks in drawn_at for name, _ in networks} == {"2bit", "4bit", "8bit", "random"}
    rng = np.random.default_rng(torch.seed())
    averages = [average_bits(drawn(precisions.search, rng), precisions.search.sites) for _ in range(240)]
    assert min(averages) < 3 and max(averages) > 7 and 4.4 < np.mean(averages) < 5.6  # five standard errors


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"networks": []}, "shared.networks=.* must be a list of precisions"),
        ({"networks": [2, 2]}, "each named once"),
        ({"networks": [2, 3]}, "shared.networks has 3 bits"),
        ({"networks": ["8"]}, "must be a list of precisions"),
        ({"each_update": 4}, "shared.each_update=4 must be null or a whole number from 1 to 3"),
        ({"full_precision": "both"}, "shared.full_precision=both must be frozen or trained"),
        ({"colour": "red"}, "there is no setting shared.colour; shared has each_update, full_precision, networks"),
    ],
)
def test_a_mistake_in_the_settings_is_told(changed, told):
    settings = {"networks": [2, 4, 8], "each_update": None, "full_precision": "frozen"}
    check_shared_stage(settings, [2, 4, 8], 4, 1.0)
    with pytest.raises(UserError, match=told):
        check_shared_stage({**settings, **changed}, [2, 4, 8], 4, 1.0)


def test_what_shared_networks_need_is_told():
    settings = {"networks": [2, 8], "full_precision": "trained"}
    with pytest.raises(UserError, match=r"needs distill\.ctc_weight above 0"):
        check_shared_stage(settings, [2, 4, 8], 4, 0.0)
    for candidates, updates in ((None, 4), ([2, 8], 0)):
        with pytest.raises(UserError, match="trained in a search's updates"):
            check_shared_stage(settings, candidates, updates, 1.0)
