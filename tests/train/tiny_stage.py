"""Training modules and stages of a very small model, with their settings within reach."""

import copy

import torch

from mpq.data.dataset import SpeechDataset
from mpq.data.librispeech import read_split
from mpq.models import loading
from mpq.models.ctc import CtcModel, CtcReader
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.sites import attach, find_sites
from mpq.train.epoch import Epochs
from mpq.train.fit import fit
from mpq.train.loss import Loss
from mpq.train.machine import Machine
from mpq.train.module import TrainingModule
from mpq.train.optimization import Optimization
from mpq.train.precisions import Precisions

CPU = Machine(accelerator="cpu")
QUANTIZER = QuantizerSettings("per_tensor")


def optimization(**changes):
    values = {
        "updates": 8,
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


def load(model_folder, speech_folder, on_bad_audio="stop"):
    """The teacher and the training utterances."""
    teacher, processor = loading.load(str(model_folder))
    return teacher, SpeechDataset(read_split(speech_folder, "train").utterances, CtcReader(processor), on_bad_audio)


def student_of(teacher, search=None, target=3.5, seed=0):
    """A copy of the teacher with its feature encoder frozen, and quantizers as `search` wants them."""
    student = copy.deepcopy(teacher)
    student.freeze_feature_encoder()
    if search is None:
        return student, None
    sites = find_sites(student)
    search.bind([site for site in sites if site.searched], target, seed)
    return student, Precisions(search, attach(student, sites, search.site_candidates(), QUANTIZER))


def module_of(teacher, dataset, settings, search=None, seed=0, loss=None, shared=None):
    student, precisions = student_of(teacher, search, seed=seed)
    loss = loss or Loss(1.0, 1.0, 1.0, CtcModel(teacher, dataset.reader.processor))
    epochs = Epochs(dataset, settings, seed)
    return TrainingModule(CtcModel(student, dataset.reader.processor), loss, epochs, precisions, shared=shared)


def train(module, settings, folder):
    torch.set_num_threads(1)
    fit(module, "tiny", settings, CPU, folder, logger=False)
    return module


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal_states(one, other):
    assert list(one) == list(other)
    assert not [name for name in one if not torch.equal(one[name], other[name])]
