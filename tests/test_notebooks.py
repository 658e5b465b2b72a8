"""The notebooks: what is kept of them is clean, and they run from a fresh checkout."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="comes with nbclient")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHECKOUT = ("configs_json", "notebooks", "self_supervised_3d_tasks")
SCRIPTS = ("train.py", "finetune.py", "predict.py", "prepare.py")
OUTPUT = "notebook_output"
ABSOLUTE = re.compile(r"(?<![\w./])/(?:home|tmp|root|usr|opt|mnt|var|Users|content|private)\b|[A-Z]:\\")
MAX_BYTES = 1_500_000

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def pictures(notebook):
    return [output.data["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]


def printed(notebook):
    """Return everything readable in the outputs: streams and all representations but pictures."""
    texts = [output.get("text", "") for output in outputs(notebook)]
    for output in outputs(notebook):
        texts += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    return "\n".join(texts)


def check_ran_top_to_bottom(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.output_type for output in outputs(notebook)} <= {"stream", "display_data", "execute_result"}
    assert not [output.text for output in outputs(notebook) if output.get("name") == "stderr"]


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["demo", "pretext_tasks"]


@every_notebook
def test_is_valid_and_for_any_python_3(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert path.stat().st_size < MAX_BYTES


@every_notebook
def test_outputs_are_kept(path):
    notebook = read(path)
    check_ran_top_to_bottom(notebook)
    assert pictures(notebook)


@every_notebook
def test_names_no_folder_of_a_machine_and_shows_no_warning(path):
    notebook = read(path)
    text = "\n".join([printed(notebook), *(cell.source for cell in notebook.cells)])
    assert ABSOLUTE.findall(text) == []
    assert re.findall(r"warning", printed(notebook), re.IGNORECASE) == []


@every_notebook
def test_links_lead_somewhere(path):
    texts = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    links = re.findall(r"\]\(([^)#]+)\)", "\n".join(texts))
    assert links
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


@pytest.mark.parametrize("text", ["saved in /home/me/x", "'/tmp/a'", "C:\\data"])
def test_an_absolute_path_is_found(text):
    assert ABSOLUTE.search(text)


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a clone holds, without anything that was made in it."""
    for name in CHECKOUT:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", OUTPUT))
    for name in SCRIPTS:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def execute(checkout, name, *, start, monkeypatch):
    """Run a notebook with the interpreter of the tests, its kernel started in a folder of the checkout."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("nilearn", reason="the demo cohort is made from data inside nilearn")
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    notebook = read(checkout / "notebooks" / f"{name}.ipynb")
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    folder = {"metadata": {"path": str(checkout / start)}}
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=folder)
    client.execute(env=os.environ | {"PYTHONPATH": str(checkout)})
    check_ran_top_to_bottom(notebook)
    return notebook


def files(checkout):
    found = {path.relative_to(checkout) for path in checkout.rglob("*") if path.is_file()}
    return {path for path in found if OUTPUT not in path.parts and "__pycache__" not in path.parts}


@pytest.mark.slow
def test_demo_runs(checkout, monkeypatch):
    before = files(checkout)
    notebook = execute(checkout, "demo", start="notebooks", monkeypatch=monkeypatch)
    assert files(checkout) == before
    assert len(pictures(notebook)) == len(pictures(read(ROOT / "notebooks" / "demo.ipynb")))
    table = next(output.text for output in outputs(notebook) if "dice_class_3" in output.get("text", ""))
    assert re.search(r"^100\b.*\bdice\b.*\b0\.\d{3}\b.*\b0\.\d{3}\b", table, re.MULTILINE)
    assert len(list((checkout / OUTPUT).rglob("masks/*.nii.gz"))) == 4


@pytest.mark.slow
def test_pretext_tasks_runs_and_shows_every_task(checkout, monkeypatch):
    from self_supervised_3d_tasks.experiment import registry

    source = (ROOT / "self_supervised_3d_tasks/algorithms/rotation.py").read_text(encoding="utf-8")
    (checkout / "self_supervised_3d_tasks/algorithms/mine.py").write_text(source, encoding="utf-8")
    before = files(checkout)
    notebook = execute(checkout, "pretext_tasks", start=".", monkeypatch=monkeypatch)
    assert files(checkout) == before
    assert "### mine" in printed(notebook)
    # The scans, their supervoxels, and each task in 3D and in 2D.
    assert len(pictures(notebook)) == 2 + 2 * (len(registry.known("algorithm")) + 1)
