"""The command that analyses a pretraining."""

import subprocess
import sys
from pathlib import Path

from self_supervised_3d_tasks.files.run_folder import RunFolder

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_command_says_one_line_where_there_is_nothing_to_analyse(tmp_path):
    run = RunFolder.create(tmp_path, "run", {})
    keys = {
        "algorithm": "jigsaw",
        "dataset_name": "nifti",
        "data_dim": 16,
        "data_dir": "scans",
        "patches_per_side": 2,
        "num_layers": 1,
    }
    run.write_json("config.json", keys)
    run.mark("finished")
    command = [sys.executable, "-m", "self_supervised_3d_tasks.commands.analyse", str(run.path)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {run.path}: pretrained with jigsaw")
