"""Training by two processes on the CPU (gloo): the update of one process with batches twice as large."""

import functools
import multiprocessing
import os
import signal

import numpy as np
import pytest
import soundfile
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from tiny_speech import ARCHITECTURE, speech_of
from tiny_stage import assert_equal_states, load, module_of, optimization, state

from mpq.models import ctc, loading
from mpq.search.gumbel import GumbelSearch
from mpq.train import processes
from mpq.train.checkpoint_io import SafetensorsCheckpointIO
from mpq.train.fit import fit
from mpq.train.loss import Loss, share_of
from mpq.train.machine import Machine
from mpq.train.optimization import Optimization
from mpq.train.precisions import Precisions
from mpq.train.shared import Shared

CONTEXT = multiprocessing.get_context("forkserver")
# As HuBERT-large: what is padding is told by a mask and changes nothing, so that utterances may be batched at will.
PADDED = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True, "mask_time_prob": 0.0}
# Two batches of at most 2 s: the longer two, the shorter three. One batch of at most 5 s: all.
SECONDS = (1.0, 0.95, 0.5, 0.5, 0.45)
SETTINGS = {"updates": 4, "interval": 2, "audio_seconds": 2.0, "learning_rate": 0.1, "dropout": True}


class Proportional(Optimization):
    """AdamW whose first steps are as large as the gradients, and not all of one size.

    So the order of float32 sums stays the rounding that it is, also where a gradient is hardly more than that.
    """

    def optimizer(self, model, searched):
        made = super().optimizer(model, searched)
        for group in made.param_groups:
            group["eps"] = 1.0
        return made


def write(folder, seconds, rng, silent=()):
    chapter = folder / "train" / "1" / "1"
    chapter.mkdir(parents=True)
    lines = []
    for number, length in enumerate(seconds):
        audio = rng.standard_normal(int(16_000 * length)) * (number not in silent)
        soundfile.write(chapter / f"1-1-{number:04d}.flac", 0.1 * audio, 16_000)
        lines.append(f"1-1-{number:04d} {'A TEST' if number % 2 else 'SAID TWICE'}\n")
    (chapter / "1-1.trans.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model that is told where padding begins, speech, and speech of which one file is bad."""
    folder, rng = tmp_path_factory.mktemp("padded"), np.random.default_rng()
    model, processor = loading.from_scratch({**ARCHITECTURE, **PADDED}, seed=0)
    processor.feature_extractor.return_attention_mask = True
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    write(folder / "speech", SECONDS, rng)
    write(folder / "bad", (1.9, 1.8, 1.7, 1.6), rng, silent=(0,))  # each a batch of its own
    return folder


def module(folder, speech="speech", **changes):
    teacher, dataset = load(folder / "model", folder / speech, on_bad_audio="skip")
    settings = Proportional(**vars(optimization(**{**SETTINGS, **changes})))
    loss = Loss(1.0, 1.0, 1.0, speech_of(teacher, True))
    shared = Shared(("random",))  # in the first half; then there is one network
    return module_of(teacher, dataset, settings, GumbelSearch(freeze_at=0.5), 5, loss, shared), settings


def train(folder, work, devices=1, **changes):
    made, settings = module(folder, **changes)
    fit(made, "tiny", settings, Machine("cpu", devices=devices), work, logger=False)
    return made


def member(rank, port, folder, out):
    """What each of the two processes does; the files that it leaves are looked at below."""
    torch.set_num_threads(1)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "WORLD_SIZE": "2"}
    os.environ.update(**meeting, LOCAL_RANK=str(rank))
    trainer = {"accelerator": "cpu", "devices": 2, "nodes": 1}
    cfg = OmegaConf.create({"trainer": trainer, "recipe": {"stages": {"tiny": {"updates": 1}}}})
    assert processes.is_follower(trainer) == (rank > 0)
    lambdas, start = [], Precisions.start_step

    def watched(self, step, total):
        start(self, step, total)
        lambdas.extend(quantizer.lambdas.detach().clone() for quantizer in self._searched.values() if not self.decided)

    def signalled(self, step, total):
        start(self, step, total)
        if step == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    Precisions.start_step = watched
    with processes.together(cfg, out):
        made = train(folder, out / "both", devices=2)
        save_file({**state(made), "heard": torch.tensor(made.all_audio_seconds())}, out / f"both{rank}")
        save_file({str(number): row for number, row in enumerate(lambdas)}, out / f"lambdas{rank}")
        save_file(state(train(folder, out / "bad", devices=2, speech="bad")), out / f"bad{rank}")
        if rank == 1:
            Precisions.start_step = signalled
        with pytest.raises(SystemExit) as stopped:
            train(folder, out / "stopped", devices=2)
        assert stopped.value.code == 128 + signal.SIGTERM
        assert processes.everyones(f"{rank}") == ["0", "1"]
        assert SafetensorsCheckpointIO().load_checkpoint(out / "stopped" / "last.safetensors")["global_step"] == 1
        Precisions.start_step = start
        save_file(state(train(folder, out / "stopped", devices=2)), out / f"resumed{rank}")


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    out, port = tmp_path_factory.mktemp("two"), str(LightningEnvironment().main_port)
    members = [CONTEXT.Process(target=member, args=(rank, port, folders, out)) for rank in range(2)]
    for process in members:
        process.start()
    for process in members:
        process.join()
    assert [process.exitcode for process in members] == [0, 0]
    return out


def assert_close_states(one, other):
    """Equal up to the order of float32 sums."""
    for name, value in one.items():
        assert torch.allclose(value, other[name], rtol=1e-4, atol=1e-6), name


def test_two_processes_make_the_updates_of_one_with_twice_the_batches(folders, trained, tmp_path):
    both = load_file(trained / "both0")
    heard = both.pop("heard")
    one = train(folders, tmp_path / "one", accumulate=2)  # the same batches, one after the other; the same dropout
    assert_close_states(state(one), both)
    assert float(heard) == pytest.approx(one.audio_seconds) == pytest.approx(4 * sum(SECONDS))
    start, _ = module(folders)
    moved = [name for name, value in state(start).items() if not torch.allclose(value, both[name], atol=1e-3)]
    assert len(moved) > 20


def test_two_processes_make_the_updates_of_one_big_batch(folders, tmp_path):
    """Without dropout, which is drawn for a batch as a whole."""
    big = train(folders, tmp_path / "big", audio_seconds=5.0, dropout=False)
    cut = train(folders, tmp_path / "cut", accumulate=2, dropout=False)
    assert_close_states(state(cut), state(big))


def test_both_processes_have_the_same_weights_and_the_same_gumbel_samples(trained):
    assert_equal_states(load_file(trained / "both0"), load_file(trained / "both1"))
    first, second = load_file(trained / "lambdas0"), load_file(trained / "lambdas1")
    assert_equal_states(first, second)
    assert len(first) > 12 and not torch.equal(first["0"], first[str(len(first) - 1)])


def test_a_process_whose_batch_is_empty_leaves_the_others_not_waiting(trained):
    states = [load_file(trained / f"bad{rank}") for rank in range(2)]
    assert_equal_states(*states)
    assert all(value.isfinite().all() for value in states[0].values())


def test_a_signal_to_one_process_stops_all_after_the_same_update(trained):
    both = load_file(trained / "both0")
    del both["heard"]
    assert_equal_states(load_file(trained / "resumed0"), both)


def test_shares_of_cut_batches_add_up_to_the_big_one(folders):
    """In float64, but for the losses themselves, against the gradient of all utterances as one batch."""
    teacher, dataset = load(folders / "model", folders / "speech")
    from mpq.data.dataset import collate

    torch.manual_seed(0)
    student = loading.from_scratch({**ARCHITECTURE, **PADDED}, seed=1)[0].double()
    speech = speech_of(student, True)
    loss = Loss(0.7, 1.3, 1.5, speech_of(teacher.double(), True))
    cuts = [[0, 1], [2], [], [3, 4]]
    lengths = collate([dataset[number] for number in range(5)]).lengths

    def gradients(numbers, batches):
        batch = collate([dataset[number] for number in numbers])
        batch = functools.partial(type(batch), **{**vars(batch), "inputs": batch.inputs.double()})()
        share = share_of(batch, speech, batches, lambda counts: share_counts(student, lengths))
        student.zero_grad()
        if numbers:
            loss(speech, batch, share)[0].backward()
        return {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}

    def share_counts(model, all_lengths):
        return torch.tensor([len(all_lengths), int(ctc.frames(model, all_lengths).sum())], dtype=torch.float64)

    whole = gradients(range(5), 1)
    parts = [gradients(cut, len(cuts)) for cut in cuts if cut]
    for name, gradient in whole.items():
        total = sum(part[name] for part in parts) / len(cuts)
        assert (total - gradient).abs().max() < 1e-5 * gradient.abs().max() + 1e-9, name


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_recomputed_activations_change_nothing(folders, tmp_path, precision):
    """Dropout included; and each layer is computed twice an update."""
    results, counts = [], []
    for recompute in (False, True):
        made, settings = module(folders, updates=2)
        layer, calls = made.model.wav2vec2.encoder.layers[0].feed_forward, []
        layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        machine = Machine("cpu", precision=precision, gradient_checkpointing=recompute)
        fit(made, "tiny", settings, machine, tmp_path / f"{recompute}", logger=False)
        results.append(state(made))
        counts.append(len(calls))
    assert_equal_states(*results)
    assert counts[1] == 2 * counts[0]
