"""The notebooks run from the first cell to the last on what the repository tracks, and show what they promise."""

import ast
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = ("listen", "precisions", "tables")


def test_these_are_the_notebooks():
    assert tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_defines_nothing_and_is_kept_without_outputs(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
            defined = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
            assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, defined)]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One process for all notebooks, since each would take seconds to import the same."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        manager, client = start_new_kernel(cwd=str(FOLDER))
        client.stop_channels()
        yield manager
        manager.shutdown_kernel(now=True)


@pytest.fixture
def outputs(request, kernel):
    """What the notebook shows: the data of all cells' outputs, by type."""
    notebook = nbformat.read(FOLDER / f"{request.param}.ipynb", as_version=4)
    forget = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%reset_selective -f .")])
    for each in (forget, notebook):  # no name of another notebook is left
        NotebookClient(each, km=kernel, timeout=600).execute()
    found: dict[str, str] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            for kind, value in {**output.get("data", {}), "stream": output.get("text", "")}.items():
                found[kind] = found.get(kind, "") + str(value)
    return found


@pytest.mark.parametrize("outputs", ["listen"], indirect=True)
def test_listen_lets_hear_and_read_an_utterance(outputs):
    assert "<audio" in outputs["text/html"] and "base64," in outputs["text/html"]
    rates = {line.split(":")[0]: float(line.split()[2]) for line in outputs["stream"].splitlines() if "words)" in line}
    assert rates.keys() == {"32 bits", "4 bits", "2 bits"} and rates["32 bits"] < rates["2 bits"]


@pytest.mark.parametrize("outputs", ["precisions"], indirect=True)
def test_precisions_draws_maps(outputs):
    assert "image/png" in outputs and "query" in outputs["text/html"]


@pytest.mark.parametrize("outputs", ["tables"], indirect=True)
def test_tables_shows_all_three_and_computes_a_cell_anew(outputs):
    assert [f"Table {number}" in outputs["text/markdown"] for number in (1, 2, 3)] == [True] * 3
    table = outputs["text/html"]
    rows = [line.strip().removeprefix("<td>").removesuffix("</td>") for line in table.splitlines() if "<td>" in line]
    assert rows and len(rows) % 7 == 0
    for start in range(0, len(rows), 7):
        _, wer, again, z, z_again, p, p_again = rows[start : start + 7]
        assert (wer, z, p) == (again, z_again, p_again)
