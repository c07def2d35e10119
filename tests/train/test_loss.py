import copy

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from tiny_speech import ARCHITECTURE, speech_of

from mpq.data.dataset import Batch
from mpq.errors import UserError
from mpq.models import loading
from mpq.models.divergence import kl_divergence
from mpq.train.loss import Loss


def reference(student, teacher, counts, temperature):
    """The definition in float64: sum_v p_t (log p_t - log p_s) x T^2, averaged over real frames."""
    p = log_softmax(teacher.double().numpy() / temperature, axis=-1)
    q = log_softmax(student.double().numpy() / temperature, axis=-1)
    frames = (np.exp(p) * (p - q)).sum(-1)
    real = np.concatenate([frames[row, :count] for row, count in enumerate(counts)])
    return temperature**2 * real.mean()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 10.0])
def test_the_divergence_is_its_definition(temperature):
    student, teacher = torch.randn(3, 11, 32) * 4, torch.randn(3, 11, 32) * 4
    counts = torch.tensor([11, 1, 6])
    got = kl_divergence(student, teacher, counts, temperature)
    assert got.item() == pytest.approx(reference(student, teacher, counts.tolist(), temperature), rel=1e-5)


def test_a_model_does_not_diverge_from_itself():
    logits = torch.randn(2, 5, 32) * 4
    assert kl_divergence(logits, logits, torch.tensor([5, 2])).item() == pytest.approx(0, abs=1e-6)


def test_padded_frames_do_not_count():
    student, teacher, counts = torch.randn(2, 7, 32), torch.randn(2, 7, 32), torch.tensor([7, 3])
    before = kl_divergence(student, teacher, counts)
    student[1, 3:], teacher[1, 3:] = torch.randn(4, 32) * 100, torch.randn(4, 32) * 100
    assert torch.equal(kl_divergence(student, teacher, counts), before)


def test_half_precision_logits_lose_nothing_more():
    student, teacher, counts = torch.randn(2, 7, 32) * 9, torch.randn(2, 7, 32) * 9, torch.tensor([7, 3])
    half, other = student.bfloat16(), teacher.bfloat16()
    assert torch.equal(kl_divergence(half, other, counts), kl_divergence(half.float(), other.float(), counts))


def test_a_batch_without_a_frame_gives_zero():
    assert kl_divergence(torch.randn(1, 3, 4), torch.randn(1, 3, 4), torch.tensor([0])).item() == 0


@pytest.fixture(scope="module")
def model():
    return loading.from_scratch(ARCHITECTURE, seed=torch.seed() % 2**32)[0]


def random_batch():
    lengths = torch.tensor([16_000, 9_000])
    inputs = torch.randn(2, 16_000).masked_fill(torch.arange(16_000) >= lengths[:, None], 0.0)
    labels = torch.randint(5, 31, (2, 6))
    labels[1, 4:] = -100
    return Batch(["a", "b"], inputs, lengths, labels, seconds=25_000 / 16_000, skipped=[])


@pytest.mark.parametrize(("ctc_weight", "kl_weight"), [(1.0, 0.0), (0.0, 1.0), (0.3, 2.0)])
def test_the_loss_is_the_weighted_sum_of_its_parts(model, ctc_weight, kl_weight):
    student = copy.deepcopy(model)
    torch.nn.init.normal_(student.lm_head.weight)
    batch = random_batch()
    loss, parts = Loss(ctc_weight, kl_weight, 2.0, speech_of(model))(speech_of(student), batch)
    total = torch.zeros(())
    if ctc_weight:
        labels = batch.labels
        outputs = speech_of(student).logits(batch.inputs, batch.lengths)
        frames = torch.tensor([student._get_feat_extract_output_lengths(n.item()) for n in batch.lengths])
        want = torch.nn.CTCLoss(blank=0)(outputs.log_softmax(-1).transpose(0, 1), labels, frames, torch.tensor([6, 4]))
        assert parts["ctc"].item() == pytest.approx(want.item(), rel=1e-5)
        total = total + ctc_weight * parts["ctc"]
    if kl_weight:
        total = total + kl_weight * parts["kl"]
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    assert not any(part.requires_grad for part in parts.values())


def test_the_teacher_learns_nothing_and_its_copies_still_can(model):
    teacher, student = copy.deepcopy(model).train(), copy.deepcopy(model)
    loss = Loss(1.0, 1.0, 1.0, speech_of(teacher))
    loss(speech_of(student), random_batch())[0].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(parameter.grad is not None for parameter in student.parameters())
    assert not teacher.training
    # The student of a later stage is a copy of the teacher.
    assert all(parameter.requires_grad for parameter in copy.deepcopy(teacher).parameters())


@pytest.mark.parametrize("values", [(-1, 1, 1), (1, -1, 1), (0, 0, 1), (1, 1, 0), (float("nan"), 1, 1), ("a", 1, 1)])
def test_weights_that_make_no_sense_are_refused(model, values):
    with pytest.raises(UserError, match="must be 0 or more and not both 0"):
        Loss(*values, speech_of(model))


def test_a_divergence_needs_a_teacher():
    with pytest.raises(UserError, match="no teacher"):
        Loss(1.0, 1.0, 1.0, None)
