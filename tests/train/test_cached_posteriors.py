"""The teacher's posteriors on disk: what it would have said, said once, and never another teacher's."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny_speech import ARCHITECTURE, speech_of

from mpq.data.corpus import Corpus
from mpq.data.dataset import Batch
from mpq.data.librispeech import Utterance
from mpq.errors import UserError
from mpq.models import ctc, loading
from mpq.models.ctc import CtcModel
from mpq.models.processor import letters_processor
from mpq.train.loss import Loss, Posteriors, folder_of

LAYER_NORM = {**ARCHITECTURE, "feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}


def model_of(architecture):
    made = loading.from_scratch(architecture, seed=torch.seed() % 2**32)[0]
    with torch.no_grad():
        made.lm_head.weight.mul_(30)  # so that posteriors differ between frames
    return made.eval()


def random_batch(lengths=(16_000, 9_000, 4_321)):
    counts = torch.tensor(lengths)
    inputs = torch.randn(len(lengths), 16_000).masked_fill(torch.arange(16_000) >= counts[:, None], 0.0)
    labels = torch.randint(5, 31, (len(lengths), 6))
    names = [f"{number}-1-0001" for number in range(len(lengths))]
    return Batch(names, inputs, counts, labels, seconds=sum(lengths) / 16_000, skipped=[])


def heard_by(teacher):
    """A list that grows by one whenever the teacher hears something from now on."""
    heard = []
    teacher.register_forward_hook(lambda *_: heard.append(None))
    return heard


def deaf(teacher):
    """The same teacher, which can't hear any more."""
    silent = copy.deepcopy(teacher)
    silent.forward = lambda *_, **__: pytest.fail("the teacher was asked again")
    return silent


def test_they_are_what_the_teacher_says_of_the_batch_where_it_is_told_of_padding(tmp_path):
    teacher, batch = model_of(LAYER_NORM), random_batch()
    found = Posteriors(tmp_path, speech_of(teacher, True))(batch, 60)
    with torch.no_grad():
        said = speech_of(teacher, True).logits(batch.inputs, batch.lengths).log_softmax(-1)
    assert found.shape == (3, 60, said.shape[2])
    for row, count in enumerate(ctc.frames(teacher, batch.lengths)):
        torch.testing.assert_close(found[row, :count], said[row, :count], rtol=1e-4, atol=1e-4)
        assert not found[row, count:].any()


@pytest.mark.parametrize("architecture", [ARCHITECTURE, LAYER_NORM])
def test_they_depend_on_no_other_utterance(architecture, tmp_path):
    teacher, batch = model_of(architecture), random_batch()
    found = Posteriors(tmp_path / "batch", speech_of(teacher))(batch, 50)
    for row, length in enumerate(batch.lengths):
        alone = Batch(
            [batch.ids[row]], batch.inputs[row : row + 1, :length], batch.lengths[row : row + 1], batch.labels, 1.0, []
        )
        count = int(ctc.frames(teacher, length))
        assert torch.equal(Posteriors(tmp_path / "alone", speech_of(teacher))(alone, count)[0], found[row, :count])


def test_the_teacher_hears_each_utterance_once_and_the_loss_is_the_same(tmp_path):
    model, student, batch = model_of(ARCHITECTURE), speech_of(model_of(ARCHITECTURE)), random_batch()
    teacher, silent = speech_of(model), speech_of(deaf(model))
    first, heard = Posteriors(tmp_path, teacher), heard_by(model)
    made = Loss(1.0, 1.0, 2.0, teacher, first)(student, batch)[0]
    assert len(heard) == 3
    assert torch.equal(Loss(1.0, 1.0, 2.0, teacher, first)(student, batch)[0], made)
    assert len(heard) == 3
    read = Loss(1.0, 1.0, 2.0, teacher, Posteriors(tmp_path, silent))(student, batch)[0]
    assert torch.equal(read, made)


def test_without_padding_the_loss_is_that_of_a_teacher_that_hears_the_batch(tmp_path):
    teacher, student = speech_of(model_of(ARCHITECTURE)), speech_of(model_of(ARCHITECTURE))
    batch = random_batch((16_000, 16_000))
    kept = Loss(0.5, 2.0, 3.0, teacher, Posteriors(tmp_path, teacher))(student, batch)[0]
    assert kept.item() == pytest.approx(Loss(0.5, 2.0, 3.0, teacher)(student, batch)[0].item(), rel=1e-4)


def test_an_utterance_too_short_for_a_frame_is_kept_as_none(tmp_path):
    teacher, batch = model_of(ARCHITECTURE), random_batch((16_000, 10))
    first = Posteriors(tmp_path, speech_of(teacher))(batch, 50)
    assert not first[1].any()
    assert torch.equal(Posteriors(tmp_path, speech_of(deaf(teacher)))(batch, 50), first)


@pytest.mark.parametrize("damage", ["cut", "empty", "another utterance's", "no tensor file"])
def test_a_damaged_file_is_made_anew(damage, tmp_path):
    teacher, batch = model_of(ARCHITECTURE), random_batch()
    want = Posteriors(tmp_path, speech_of(teacher))(batch, 50)
    files = [tmp_path / f"{name}.safetensors" for name in batch.ids]
    content = files[0].read_bytes()
    new = {"cut": content[:-7], "empty": b"", "another utterance's": files[1].read_bytes(), "no tensor file": b"x" * 99}
    files[0].write_bytes(new[damage])
    heard = heard_by(teacher)
    assert torch.equal(Posteriors(tmp_path, speech_of(teacher))(batch, 50), want)
    assert len(heard) == 1
    assert files[0].read_bytes() == content


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/0-1-0001.safetensors can't be written \(.*\): distill.keep=false works"):
        Posteriors(tmp_path / "file", speech_of(model_of(ARCHITECTURE)))(random_batch(), 50)


def corpus_of(names, content="0"):
    return Corpus("noise", content, [Utterance(name, "train", "s", None, "A", 1.0) for name in names], {}, [])


def test_the_folder_is_named_by_all_that_the_posteriors_depend_on(tmp_path):
    teacher, processor, corpus = model_of(ARCHITECTURE), letters_processor(), corpus_of("ab")
    heavier, configured, other = copy.deepcopy(teacher), copy.deepcopy(teacher), copy.deepcopy(processor)
    with torch.no_grad():
        heavier.lm_head.bias[0] += 1e-3
    configured.config.layer_norm_eps *= 2
    other.feature_extractor.do_normalize = not processor.feature_extractor.do_normalize
    folders = [
        folder_of(tmp_path, CtcModel(teacher, processor), corpus, "32-true"),
        folder_of(tmp_path, CtcModel(heavier, processor), corpus, "32-true"),
        folder_of(tmp_path, CtcModel(configured, processor), corpus, "32-true"),
        folder_of(tmp_path, CtcModel(teacher, other), corpus, "32-true"),
        folder_of(tmp_path, CtcModel(teacher, processor), corpus_of("ab", "1"), "32-true"),
        folder_of(tmp_path, CtcModel(teacher, processor), corpus, "bf16-mixed"),
    ]
    assert len(set(folders)) == len(folders)
    assert all(folder.parent == tmp_path for folder in folders)
    moved = copy.deepcopy(teacher)
    moved.config._name_or_path = "elsewhere"
    assert folder_of(tmp_path, speech_of(moved), replace(corpus), "32-true") == folders[0]


def test_two_utterances_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="b is in the training data twice"):
        folder_of(tmp_path, speech_of(model_of(ARCHITECTURE)), corpus_of("abcb"), "32-true")
