"""The real command with all that it can do at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
JOBS = {"100_initialized_0": 0.3, "100_initialized_1": 0.4, "100_random_0": 0.9}


def predict(*arguments):
    command = [sys.executable, str(ROOT / "predict.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("workspace")
    for number, name in enumerate(("one", "two")):
        seeds = {job: 10 * number + place for place, job in enumerate(JOBS)}
        write_run(folder / name, jobs=JOBS, seeds=seeds, volume_fitting=("resize", "crop")[number])
    rng = np.random.default_rng(0)
    for kind in ("in", "truth"):
        (folder / kind).mkdir()
    for name in "abc":
        image = rng.random((12, 16, 20)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / "in" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image((image > 0.5).astype(np.uint8), np.eye(4)), folder / "truth" / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(np.full((12, 16, 20), np.nan), np.eye(4)), folder / "in" / "bad.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((12, 16, 20), np.uint8), np.eye(4)), folder / "truth" / "bad.nii.gz")
    return folder


def test_an_ensemble_over_mirror_images_is_scored_and_a_bad_scan_is_told(workspace):
    out = workspace / "out"
    flags = ["--ensemble", "best", "--also", workspace / "two", "--mirror", "x,z", "--largest_component", "all"]
    flags += ["--probabilities", "--overlay", "--scores", workspace / "truth"]
    result = predict(workspace / "one", workspace / "in", out, *flags)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    names = [f"{name}{ending}" for name in "abc" for ending in (".nii.gz", ".png", "_probabilities.nii.gz")]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "scores.csv"])
    lines = result.stdout.splitlines()
    assert lines[:3] == [str(out / f"{name}.nii.gz") for name in "abc"]
    assert lines[3].startswith("dice 0.") and lines[3].endswith("(3 of 4 scans)")
    assert "models: one: 100_initialized_0, 100_initialized_1 (all repetitions of the mode" in result.stderr
    error = f"error: 1 scan could not be predicted; repair, and go on with --resume:\n  {workspace / 'in'}/bad.nii.gz: "
    assert error in result.stderr
    total = np.asarray(nib.load(out / "a_probabilities.nii.gz").dataobj).sum(-1)
    np.testing.assert_allclose(total, 1, atol=1e-5)
    again = predict(workspace / "one", workspace / "in", out, "--dry_run", "--resume")
    assert again.returncode == 0 and again.stdout == f"{workspace / 'in'}/bad.nii.gz -> {out / 'bad.nii.gz'}\n"


def test_one_line_says_which_model_it_takes_and_mistakes_are_one_message(workspace):
    result = predict(workspace / "one", workspace / "in" / "a.nii.gz", workspace / "single")
    assert result.returncode == 0, result.stderr
    assert "model: 100_initialized_0 (100 % of the labels; lowest of 3 validation losses, 0.3)" in result.stderr
    result = predict(workspace / "one", workspace / "in" / "bad.nii.gz", workspace / "single")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("expected finite float32 values. Repair the file, remove it.")
    stored = json.loads((workspace / "two" / "config.json").read_text())
    (workspace / "two" / "config.json").write_text(json.dumps(stored | {"num_classes": 4}))
    result = predict(workspace / "one", workspace / "in", workspace / "more", "--also", workspace / "two")
    assert result.returncode == 2
    assert "num_classes: " in result.stderr and "Traceback" not in result.stderr
