"""The experiment file: how it is read, what overrides it, and what each mistake says."""

import json
import re
import subprocess
import sys

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment
from tests.experiment.experiment_files import REPOSITORY, TRAIN, classify, finetune, write


@pytest.mark.parametrize("keys", [{}, {"dataset_name": "kaggle_retina", "multilabel": True, "label_map": {"4": 3}}])
def test_a_resolved_file_holds_the_defaults_and_resolves_to_itself(tmp_path, keys, caplog):
    experiment = classify(tmp_path, **keys) if keys else finetune(tmp_path)
    resolved = experiment.model_dump(mode="json")
    assert {"num_classes", "loss", "scores", "intensity_window"} <= resolved.keys()
    caplog.clear()
    assert load_experiment("finetune", write(tmp_path, resolved)).model_dump() == experiment.model_dump()
    assert caplog.records == []


def test_a_wrong_key_is_not_followed_by_complaints_about_defaults(tmp_path):
    with pytest.raises(UserError) as error:
        finetune(tmp_path, dataset_name=3)
    assert str(error.value).endswith("dataset_name: input should be a valid string, received 3")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.json: no such experiment file"):
        load_experiment("train", tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text('{"algorithm": "cpc",')
    with pytest.raises(UserError, match=r"broken\.json: .*not valid JSON at line 1, column 21"):
        load_experiment("train", tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UserError, match=r"list\.json: expected a JSON object"):
        load_experiment("train", tmp_path / "list.json")


def test_overrides_are_typed_and_reach_nested_groups(tmp_path):
    path = write(tmp_path, TRAIN)
    overrides = ["epochs=3", "lr=0.5", "data_dir=123abc", "model_params.dropout=0.1", "data_dim=[32, 32, 64]"]
    experiment = load_experiment("train", path, overrides)
    assert (experiment.epochs, experiment.lr, experiment.data_dir) == (3, 0.5, "123abc")
    assert experiment.dropout == 0.1
    assert experiment.input_shape == (32, 32, 64, 1)
    with pytest.raises(UserError, match="--set epochs: expected key=value"):
        load_experiment("train", path, ["epochs"])
    with pytest.raises(UserError, match=r"epochs: .*integer"):
        load_experiment("train", path, ["epochs=x"])


def test_a_mistake_is_found_without_loading_tensorflow(tmp_path):
    path = write(tmp_path, TRAIN | {"epoch": 1})
    code = (
        "import sys\n"
        "from self_supervised_3d_tasks.experiment.load import load_experiment\n"
        "try:\n"
        f"    load_experiment('train', {str(path)!r})\n"
        "except ValueError:\n"
        "    heavy = [name for name in ('tensorflow.python', 'keras.src', 'matplotlib') if name in sys.modules]\n"
        "    print(heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


def test_the_example_of_the_readme_loads(tmp_path):
    pretraining, finetuning = re.findall(r"```json\n(.+?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    experiment = load_experiment("train", write(tmp_path, json.loads(pretraining)))
    assert experiment.algorithm == "cpc"
    run = tmp_path / experiment.run_location()[1]
    run.mkdir()
    (run / "config.json").write_text(experiment.model_dump_json())
    (run / "encoder.keras").write_bytes(b"")
    keys = json.loads(finetuning)
    assert keys["model_checkpoint"] == f"runs/{run.name}"
    finetune = load_experiment("finetune", write(tmp_path, keys | {"model_checkpoint": str(run)}))
    assert (finetune.num_layers, finetune.input_shape) == (experiment.num_layers, experiment.input_shape)
    assert dict(finetune.modes()) == {"initialized": finetune.epochs_random, "random": finetune.epochs_random}
