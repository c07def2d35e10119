"""The wheel, built and unpacked in a folder of its own: the README's Python examples run from it, outside the clone."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import soundfile

from mpq.conf import REPOSITORY

PROGRAM = """
import json, os, sys, hydra
import numpy as np
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

sys.modules["matplotlib_inline"] = None  # as if the program's environment lacked what its notebook has

def sources():
    return [(source.provider, source.path) for source in GlobalHydra.instance().hydra.config_loader.get_sources()]

@hydra.main(config_path=None, version_base="1.2")
def main(cfg):
    import mpq
    from mpq.compress.quantize_now import quantize_now
    mine = sources()
    made = quantize_now("tiny_wav2vec2", 3.5)
    assert sources() == mine, "another program's Hydra is as it was"
    assert HydraConfig.get().job.name == "program"
    from mpq.deploy.onnx_export import export
    export(quantize_now("smallest", 4).folder, "onnx/model_speed.onnx")
    made.folder.rename("FOLDER")
    for example in json.load(open("examples.json")):
        exec(example, names := {})
        if "recognise" in names:
            assert type(names["small"]).__name__ == "Wav2Vec2ForCTC"
            assert isinstance(names["recognise"](np.zeros(16_000))["text"], str)
    print(mpq.__file__)

main()
"""


def run(*words, cwd, **variables):
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MPLBACKEND")}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=environment | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "keep_packed" not in done.stderr, "transformers' warning says that a packed model's only option is ignored"
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder in which the wheel is installed; what it depends on comes from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    hatch = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, REPOSITORY, cwd=folder, **hatch)
    return unpacked(folder)


def unpacked(folder):
    """What installing the wheel in `folder` puts on the path."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


def test_the_readmes_examples_run_from_the_wheel_in_an_empty_folder(site, tmp_path, model_folder):
    """Compressing there is part of a Hydra program, below a notebook whose backend its environment lacks."""
    (tmp_path / "program.py").write_text(PROGRAM)
    shutil.copytree(model_folder, tmp_path / "smallest")
    soundfile.write(tmp_path / "talk.wav", np.random.default_rng().normal(0, 0.1, 16_000), 16_000)
    examples = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 2
    (tmp_path / "examples.json").write_text(json.dumps(examples))
    apart = {"PYTHONPATH": str(site), "MPLBACKEND": "inline"}
    said = run("program.py", "hydra.run.dir=.", "hydra.output_subdir=null", cwd=tmp_path, **apart)
    assert said.splitlines()[-1] == str(site / "mpq" / "__init__.py")


def test_an_editable_install_is_imported_from_the_folder_above_the_clone(tmp_path):
    """There the clone, a folder named mpq, would be an empty namespace package if no path entry had the real one."""
    clone = tmp_path / "mpq"
    (clone / "mpq").mkdir(parents=True)
    (clone / "mpq" / "__init__.py").write_text("here = True")
    (clone / "conf").mkdir()
    (clone / "conf" / "config.yaml").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (clone / name).write_bytes((REPOSITORY / name).read_bytes())
    hatch = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    run("-c", f"from hatchling.build import build_editable; build_editable({str(tmp_path)!r})", cwd=clone, **hatch)
    unpacked(tmp_path)
    path = "import sys; own = len(sys.path); import site; site.addsitedir('site'); sys.path[:0] = sys.path[own:]"
    run("-c", f"{path}; import mpq; assert mpq.here", cwd=tmp_path)
