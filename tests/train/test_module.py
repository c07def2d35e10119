import logging
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from tiny_speech import speech_of, write_speech
from tiny_stage import assert_equal_states, load, module_of, optimization, state, train

from mpq.errors import UserError
from mpq.search.gumbel import GumbelSearch
from mpq.train.checkpoint_io import SafetensorsCheckpointIO
from mpq.train.loss import Loss
from mpq.train.shared import Shared


@pytest.fixture(scope="module")
def loaded(model_folder, speech_folder):
    return load(model_folder, speech_folder)


class Spoilt(Loss):
    """The loss of the teacher's task, spoilt at one update."""

    def __init__(self, teacher, update, spoil):
        super().__init__(1.0, 1.0, 1.0, speech_of(teacher))
        self._left, self._spoil = update, spoil

    def of(self, *given):
        self._left -= 1
        loss, parts = super().of(*given)
        return (loss if self._left else self._spoil(loss)), parts


def test_every_parameter_learns_at_its_own_rate(loaded):
    teacher, dataset = loaded
    settings = optimization(learning_rate=1e-3, scale_learning_rate=2e-3, weight_decay=0.5)
    module = module_of(teacher, dataset, settings, GumbelSearch(logit_learning_rate=0.07))
    optimizer = module.configure_optimizers()["optimizer"]
    found = {
        id(parameter): (group["initial_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in module.named_parameters():
        if "feature_extractor" in name:
            want = None  # the convolutions on the audio stay as they are
        elif name == "search.logits":
            want = (0.07, 0.0)
        elif name.endswith("log_scales"):
            want = (2e-3, 0.0)
        else:
            want = (1e-3, 0.5 if parameter.ndim > 1 else 0.0)
        assert found.pop(id(parameter), None) == want, name
    assert not found
    scales = [name for name, _ in module.named_parameters() if name.endswith("log_scales")]
    assert len(scales) > 12


def test_the_teacher_is_no_part_of_the_checkpoint(loaded, tmp_path):
    teacher, dataset = loaded
    settings = optimization(updates=1, interval=1)
    module = train(module_of(teacher, dataset, settings, GumbelSearch()), settings, tmp_path)
    saved = SafetensorsCheckpointIO().load_checkpoint(tmp_path / "last.safetensors")["state_dict"]
    assert list(saved) == list(module.state_dict())
    assert not [name for name in saved if "teacher" in name or "loss" in name]
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_one_update_draws_the_same_dropout_and_masks_however_often_it_is_made(loaded):
    teacher, dataset = loaded
    module = module_of(teacher, dataset, optimization(dropout=True))
    module.on_train_epoch_start()
    inputs = torch.randn(1, 16_000)

    def outputs(batch_idx):
        module.on_train_batch_start(None, batch_idx)
        return module.model(inputs).logits

    first, other = outputs(0), outputs(1)
    assert not torch.equal(first, other)
    torch.rand(5), np.random.rand(5)
    assert torch.equal(outputs(0), first) and torch.equal(outputs(1), other)


class KilledError(Exception):
    pass


def kill(_):
    raise KilledError


@pytest.mark.parametrize(
    ("accumulate", "descend", "shared"),
    [(1, None, None), (2, None, Shared((2, "random"), each_update=1)), (1, 0.8, None)],
)
def test_a_resumed_run_ends_as_the_uninterrupted_one(loaded, tmp_path, accumulate, descend, shared):
    teacher, dataset = loaded
    settings = optimization(updates=11, accumulate=accumulate, dropout=True)

    def module(loss=None):
        search = GumbelSearch(freeze_at=0.7, descend=descend)
        return module_of(teacher, dataset, settings, search, seed=3, loss=loss, shared=shared)

    want = train(module(), settings, tmp_path / "whole")
    losses = accumulate * (2 if shared else 1)  # of an update: one network and the mixture
    for update in (3, 7, 2):  # before the first checkpoint, after it, and again after the resumption
        with pytest.raises(KilledError):
            train(module(Spoilt(teacher, update * losses, kill)), settings, tmp_path / "killed")
    got = train(module(), settings, tmp_path / "killed")
    assert got.trainer.global_step == 11
    assert_equal_states(state(got), state(want))
    assert got.audio_seconds == want.audio_seconds > 0
    assert got.trajectory == want.trajectory
    again = train(module(), settings, tmp_path / "killed")  # killed after the stage's end: only the outcome is loaded
    assert_equal_states(state(again), state(want))


def test_what_a_signal_leaves_of_an_interval_has_no_device(loaded, tmp_path):
    teacher, dataset = loaded
    settings = optimization(updates=4)
    want = train(module_of(teacher, dataset, settings), settings, tmp_path / "whole")
    stopping = Spoilt(teacher, 2, lambda loss: os.kill(os.getpid(), signal.SIGTERM) or loss)
    with pytest.raises(SystemExit):
        train(module_of(teacher, dataset, settings, loss=stopping), settings, tmp_path / "stopped")
    saved = SafetensorsCheckpointIO().load_checkpoint(tmp_path / "stopped" / "last.safetensors")
    assert [type(loss) for loss in saved["losses"]] == [float, float]  # a tensor would come back on the CPU
    got = train(module_of(teacher, dataset, settings), settings, tmp_path / "stopped")
    assert got.trajectory == want.trajectory


def test_audio_is_added_up_over_processes_where_they_can_talk(loaded):
    teacher, dataset = loaded
    module = module_of(teacher, dataset, optimization())
    devices = []

    def reduce(numbers, reduce_op):  # NCCL refuses tensors on the CPU, where Lightning leaves the model
        devices.append(numbers.device.type)
        return 7.5

    strategy = SimpleNamespace(root_device=torch.device("meta"), reduce=reduce)
    module._processes, module._fabric, module._trainer = 2, None, SimpleNamespace(strategy=strategy)
    assert module.all_audio_seconds() == 7.5
    assert devices == ["meta"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda loss: loss * float("nan"), "the loss is nan in update 8 of 12"),
        (lambda loss: (loss - loss.detach()) * 1e38 * 1e38 + loss.detach(), "the loss is nan in update 8 of 12"),
    ],
)
def test_a_diverged_run_says_so_and_keeps_the_last_good_checkpoint(loaded, tmp_path, spoil, told):
    teacher, dataset = loaded
    settings = optimization(updates=12)
    with pytest.raises(UserError) as refused:
        train(module_of(teacher, dataset, settings, loss=Spoilt(teacher, 6, spoil)), settings, tmp_path)
    assert told in str(refused.value) and "trainer.learning_rate" in str(refused.value)
    kept = SafetensorsCheckpointIO().load_checkpoint(tmp_path / "last.safetensors")
    assert kept["global_step"] == 4
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_weights_that_break_in_the_update_of_a_checkpoint_are_not_saved(loaded, tmp_path):
    teacher, dataset = loaded
    settings = optimization(updates=12)
    loss = Spoilt(teacher, 8, lambda loss: loss + (loss - loss.detach()) * 1e38 * 1e38)
    with pytest.raises(UserError, match="weights became NaN or infinite by update 8"):
        train(module_of(teacher, dataset, settings, loss=loss), settings, tmp_path)
    kept = SafetensorsCheckpointIO().load_checkpoint(tmp_path / "last.safetensors")
    assert kept["global_step"] == 4


def test_batches_whose_files_are_all_bad_leave_the_weights_alone(model_folder, tmp_path, caplog):
    folder = write_speech(tmp_path / "speech", {"train": 3}, np.random.default_rng())
    paths = sorted(folder.rglob("*.flac"))
    for path in paths:
        soundfile.write(path, np.zeros(9_000), 16_000)
    teacher, dataset = load(model_folder, folder, on_bad_audio="skip")
    settings = optimization(updates=4)
    module = module_of(teacher, dataset, settings)
    before = state(module)
    with caplog.at_level(logging.WARNING, logger="mpq"):
        train(module, settings, tmp_path / "work")
    assert_equal_states(state(module), before)
    assert module.audio_seconds == 0
    named = [record.getMessage() for record in caplog.records if "is silent" in record.getMessage()]
    assert sorted(named) == [f"left out: {path} is silent" for path in paths]


def test_settings_of_the_machine_that_lightning_refuses_are_told(loaded, tmp_path):
    from mpq.train.fit import fit
    from mpq.train.machine import Machine

    teacher, dataset = loaded
    settings = optimization()
    machine = Machine(accelerator="cpu", strategy="luck")
    with pytest.raises(UserError, match="Lightning rejects"):
        fit(module_of(teacher, dataset, settings), "tiny", settings, machine, tmp_path, logger=False)


def test_a_bad_file_that_a_worker_process_meets_is_told_in_one_sentence(model_folder, tmp_path):
    from mpq.guard import explain

    folder = write_speech(tmp_path / "speech", {"train": 2}, np.random.default_rng())
    for path in folder.rglob("*.flac"):
        soundfile.write(path, np.zeros(9_000), 16_000)
    teacher, dataset = load(model_folder, folder)
    settings = optimization(workers=1)
    with pytest.raises(UserError) as refused:
        train(module_of(teacher, dataset, settings), settings, tmp_path / "work")
    sentence = explain(refused.value)
    assert "is silent; fix it" in sentence and "\n" not in sentence and not sentence.startswith("mpq.")
