"""Files of a run folder that another hand has touched: one message that names file and key, or they are made again."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks import training
from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files import run_files
from self_supervised_3d_tasks.files.checksums import checksum
from self_supervised_3d_tasks.files.json_files import read_json, write_json
from self_supervised_3d_tasks.files.models import save_model
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.finetuning.plan import plan
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.prediction.choice import finished_jobs
from self_supervised_3d_tasks.prediction.members import load_members

ROW = {"epoch": 1, "phase": 1, "loss": 0.5, "val_loss": 0.25, "val_dice": None, "seconds": 1.5}
WEIGHTS = {"epoch": 1, "file": "checkpoints/epoch_0001.weights.h5", "sha256": "0" * 64}
STATE = {
    "phase": 1,
    "steps_per_epoch": 3,
    "last": WEIGHTS,
    "best": dict(WEIGHTS),
    "best_value": 0.25,
    "seeds": [[0, 1337]],
    "history": [ROW],
}
SKIPPED = [{"case": "c", "reason": "c.nii.gz: cannot be read"}]
SPLIT = {"train": {"100%, repetition 0": ["a"]}, "validation": ["b"], "test": {"repetition 0": ["t"]}}
SHAPE = {"orientation": "RAS", "spacing": [1.0, 1.0, 2.0]}
SIZES = {"least": [1.0, 1, 2], "median": [1, 1, 2], "largest": [1, 1, 3]}
CONTENTS = [
    ("status.json", run_files.Status, {"status": "running", "since": "2026-01-01T00:00:00+00:00"}),
    ("split.json", run_files.PretrainingSplit, {"train": ["a", "\udcff"], "validation": ["b"], "skipped": SKIPPED}),
    ("split.json", run_files.SweepSplit, SPLIT | {"labels": {"a": 1}, "test_labels": {"t": "x"}, "skipped": SKIPPED}),
    ("seen.json", run_files.SeenScans, {"scans": [{"case": "a", "subject": "a", "channels": ["00ff"]}]}),
    ("geometry.json", run_files.Geometry, SHAPE | {"spacing_of_files": SIZES}),
    ("leakage.json", run_files.LeakageRecord, {"summary": "0 of 3 test cases"}),
    ("scores.json", run_files.JobScores, {"best_val_loss": 0.5, "scores": [["t", "dice", 0.5], ["t", "dice_2", None]]}),
    ("state.json", run_files.State, STATE),
]
# What has no default, by path; the others may be missing.
OPTIONAL = {("since",), ("skipped",), ("labels",), ("test_labels",), ("scans", 0, "case")}
OPEN = {("labels", "a"), ("test_labels", "t"), ("train", "100%, repetition 0"), ("test", "repetition 0")}
OPEN |= {("history", 0, name) for name in ("val_dice", "seconds")}
WRONG = {"wrong": [{}]}  # of a type that no key has


def paths(value, path=()):
    """Yield the path of every key and every item in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def changed(content, path, value=None):
    """Return a copy with another value at a path, or with ``...`` without it."""
    content = copy.deepcopy(content)
    *parents, last = path
    holder = content
    for key in parents:
        holder = holder[key]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return content


def mutations(content):
    """Yield what is in a damaged file and the key that its message must name."""
    for other in ([], [content], "text", 3, 0.5, True, None):
        yield json.dumps(other), ""
    text = json.dumps(content)
    yield from ((damaged, "") for damaged in ("", " ", text[: len(text) // 2], text + "}", "\x00" * 64, "not JSON"))
    for path in paths(content):
        yield json.dumps(changed(content, path, WRONG)), path[0]
        if isinstance(path[-1], str) and path not in OPTIONAL | OPEN:
            yield json.dumps(changed(content, path, ...)), path[0]
        value = content
        for key in path:
            value = value[key]
        if isinstance(value, float):
            yield from ((json.dumps(changed(content, path, wrong)), path[0]) for wrong in (np.nan, np.inf, "0.5", True))


ROWS = [
    pytest.param(name, kind, text, key, id=f"{kind.__name__}-{number}-{key}")
    for name, kind, content in CONTENTS
    for number, (text, key) in enumerate(mutations(content))
]


@pytest.mark.parametrize(("name", "kind", "text", "key"), ROWS)
def test_a_damaged_file_is_named_with_its_key(name, kind, text, key, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        run_files.read(path, kind)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and key in message
    assert len(message) < len(str(path)) + 500


@pytest.mark.parametrize(("name", "kind", "content"), CONTENTS)
def test_what_is_written_is_read(name, kind, content, tmp_path):
    write_json(tmp_path / name, content)
    assert run_files.read(tmp_path / name, kind).model_dump(mode="python") == kind.model_validate(content).model_dump()
    for path in OPTIONAL & set(paths(content)):
        write_json(tmp_path / name, changed(content, path, ...))
        run_files.read(tmp_path / name, kind)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"last": WEIGHTS | {"file": "../other/epoch_0001.weights.h5"}}, "last.file"),
        ({"last": WEIGHTS | {"epoch": 2}}, "history"),
        ({"history": [ROW, ROW]}, "history"),
        ({"history": []}, "history"),
        ({"best": WEIGHTS | {"epoch": 7}}, "best"),
        ({"phase": 0}, "phase"),
        ({"seeds": [[2**32, 0]]}, "seeds"),
        ({"seeds": [[-1, 0]]}, "seeds"),
        ({"history": [ROW | {"loss": 10**400}]}, "history"),
    ],
)
def test_a_state_that_contradicts_itself_is_refused(change, key, tmp_path):
    write_json(tmp_path / "state.json", STATE | change)
    with pytest.raises(UserError, match=rf"state\.json: .*{key}") as caught:
        run_files.read(tmp_path / "state.json", run_files.State)
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"status": 1}', '{"status": "done"}', "\x00"])
def test_a_status_that_cannot_be_read_is_that_of_an_unfinished_run(text, tmp_path, caplog):
    folder = RunFolder(tmp_path)
    folder.status.write_text(text)
    assert not folder.is_finished
    assert "status.json" in caplog.text and "gone through again" in caplog.text


def test_foreign_folders_among_the_jobs_are_left_out_with_one_warning(tmp_path, caplog):
    jobs = RunFolder(tmp_path).jobs
    kept = jobs / "100_random_0"
    kept.mkdir(parents=True)
    write_json(kept / "scores.json", {"best_val_loss": 0.5, "scores": []})
    (kept / "model.keras").touch()
    foreign = ["backup of 100_random_0", "1.2.3_random_0", "1_random_0", "100_copy_0", "100_random_00"]
    for name in foreign:
        shutil.copytree(kept, jobs / name)
    (jobs / "notes.txt").touch()
    write_json(jobs / "100_copy_0" / "scores.json", [])
    assert [job.name for job in finished_jobs(tmp_path)] == ["100_random_0"]
    (warning,) = caplog.messages
    assert all(repr(name) in warning for name in (*foreign, "notes.txt"))


EXPERIMENT = {
    "algorithm": "rotation",
    "dataset_name": "nifti",
    "data_dim": 16,
    "enc_filters": 2,
    "num_layers": 1,
    "pooling": "none",
    "tensorboard": False,
}
OF_SWEEP = {"data_dir_train": "scans", "num_classes": 2, "epochs_initialized": 0, "epochs_frozen": 0}


def experiment_of(folder: Path, command: str, **keys):
    (folder / "experiment.json").write_text(json.dumps(EXPERIMENT | keys))
    return load_experiment(command, folder / "experiment.json")


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory):
    """A run folder of a pretraining with nothing but its keys."""
    folder = tmp_path_factory.mktemp("pretraining")
    experiment = experiment_of(folder, "train", data_dir="scans", epochs=1, head_units=[8])
    write_json(folder / "run" / "config.json", experiment.model_dump(mode="json"))
    return folder / "run"


@pytest.mark.parametrize("value", [WRONG, [WRONG], -1.5, "text", ...], ids=["group", "list", "number", "text", "none"])
def test_a_pretraining_with_a_wrong_key_is_refused_by_its_file_or_read(pretraining, value, tmp_path):
    stored = read_json(pretraining / "config.json")
    refused = []
    for key in stored:
        write_json(tmp_path / "run" / "config.json", changed(stored, (key,), value))
        (tmp_path / "finetune.json").write_text(
            json.dumps(OF_SWEEP | {"dataset_name": "nifti", "data_dim": 16, "model_checkpoint": str(tmp_path / "run")})
        )
        try:
            assert load_experiment("finetune", tmp_path / "finetune.json").algorithm == "rotation"
        except UserError as error:
            assert "config.json" in str(error) or key in str(error), key
            refused.append(key)
    assert "algorithm" in refused
    if value is not ...:
        assert {"enc_filters", "num_layers", "number_channels"} <= set(refused)


def test_a_checkpoint_without_a_run_names_the_runs_beside_it(pretraining, tmp_path):
    (tmp_path / "cpc").mkdir()
    (tmp_path / "cpc_1").mkdir()
    (tmp_path / "cpc_1" / "encoder.keras").touch()
    keys = OF_SWEEP | {"epochs_initialized": 1, "epochs_warmup": 0, "model_checkpoint": str(tmp_path / "cpc")}
    experiment = experiment_of(tmp_path, "finetune", **keys)
    with pytest.raises(UserError, match=r"cpc: holds no run; the finished runs of that name are .*cpc_1$"):
        plan(experiment)


@pytest.mark.parametrize("text", ["[]", "3", "", '{"algorithm": ', '"x"'])
def test_a_run_whose_keys_cannot_be_read_is_named_by_resume(text, tmp_path):
    experiment = experiment_of(tmp_path, "train", data_dir="scans", base_workspace=str(tmp_path / "runs"))
    folder = experiment_run.claim(experiment, resume=False)
    folder.config.write_text(text)
    with pytest.raises(UserError, match=r"rotation_nifti/config\.json: expected a JSON"):
        experiment_run.claim(experiment, resume=True)


@pytest.mark.parametrize("splits", [[50.0000001, 50], [100, 10, 10], [1, 1.0000001]])
def test_label_fractions_that_would_share_a_folder_are_refused(splits, tmp_path):
    with pytest.raises(UserError, match="exp_splits: .*same label fraction"):
        experiment_of(tmp_path, "finetune", **OF_SWEEP, exp_splits=splits)


def small_model(seed=0):
    inputs = keras.Input((3,))
    dropped = keras.layers.Dropout(0.5, seed=seed)(keras.layers.Dense(2)(inputs))
    model = keras.Model(inputs, dropped)
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all", b"\x89HDF\r\n\x1a\n" + b"\0" * 64])
def test_weights_that_are_no_weights_are_named_though_their_checksum_is_right(content, tmp_path):
    folder = RunFolder(tmp_path)
    path = folder.weights(1)
    path.parent.mkdir()
    path.write_bytes(content)
    weights = WEIGHTS | {"sha256": checksum(path)}
    folder.write_json("state.json", STATE | {"last": weights, "best": weights})
    with pytest.raises(UserError, match=r"epoch_0001\.weights\.h5: does not fit the model"):
        training.restore_best(small_model(), folder)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A function that gives a run folder of a sweep with one job, whose model is that of other keys."""
    folder = tmp_path_factory.mktemp("sweep")

    def make(name, spoil=None, **keys):
        run = RunFolder(folder / name)
        run.path.mkdir()
        write_json(run.config, experiment_of(folder, "finetune", **OF_SWEEP).model_dump(mode="json"))
        other = experiment_of(folder, "finetune", **OF_SWEEP | keys)
        model = build.make_model(other, seed=0)[1]
        if spoil:
            spoil(model)
        save_model(model, run.job("100_random_0").model)
        write_json(run.job("100_random_0").scores, {"best_val_loss": 0.5, "scores": []})
        return run.path

    return make


def _spoil(model):
    model.layers[-1].set_weights([np.full_like(value, np.nan) for value in model.layers[-1].get_weights()])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("classes", {"num_classes": 5}, r"outputs \(16, 16, 16, 2\).*received \(None, 16, 16, 16, 5\)"),
        ("size", {"data_dim": 32}, r"images \(16, 16, 16, 1\).*received \(None, 32, 32, 32, 1\)"),
        ("channels", {"number_channels": 2}, r"images \(16, 16, 16, 1\).*received \(None, 16, 16, 16, 2\)"),
        ("nan", {"spoil": _spoil}, "is NaN or infinite; train this job again"),
    ],
)
def test_a_model_that_is_not_of_the_run_does_not_predict(sweep, name, options, message):
    with pytest.raises(UserError, match=rf"100_random_0/model\.keras: .*{message}"):
        load_members(sweep(name, **options), None, None, [])


def test_the_model_of_the_run_predicts(sweep):
    assert [member.name for member in load_members(sweep("right"), None, None, [])] == ["100_random_0"]


@pytest.fixture
def started(tmp_path, write_scans, run_command, monkeypatch):
    """A function that runs a small experiment to its end, and gives its folder and a function that resumes it."""
    monkeypatch.chdir(tmp_path)
    write_scans(tmp_path / "scans", 4)

    def start(command, **keys):
        (tmp_path / "own.json").write_text(json.dumps(EXPERIMENT | {"log_level": "WARNING", "seed": 1} | keys))
        assert run_command(command, "own.json").code == 0
        (path,) = (tmp_path / "runs").iterdir()
        return RunFolder(path), lambda: run_command(command, "own.json", "--resume")

    return start


def contents(folder: Path) -> dict[str, bytes]:
    """Return what each file holds that says nothing of when and how fast it was made."""
    timed = {"status.json", "environment.json", "history.csv", "state.json"}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in timed]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.suffix in (".json", ".csv")
    }


@pytest.mark.slow
def test_a_pretraining_goes_on_with_what_can_be_made_again_and_stops_at_what_cannot(started):
    folder, resume = started("train", data_dir="scans", epochs=1, head_units=[8], train_val_split=0.75)
    before = contents(folder.path)
    for name in ("split.json", "seen.json", "task.json", "state.json", "config.json"):
        path = folder.path / name
        kept = path.read_bytes()
        folder.mark("running")
        path.write_text('["another"]')
        ended = resume()
        assert (ended.code, ended.out) == (2, ""), name
        assert ended.err.startswith("error: ") and ended.err.count("\n") == 1 and name in ended.err
        assert "delete" not in ended.err and "remove" not in ended.err.replace("remove it to go on unchecked", "")
        path.write_bytes(kept)
    folder.status.write_text("[]")
    folder.encoder.unlink()
    folder.pretext_scores.unlink()
    assert resume().code == 0
    assert folder.is_finished and folder.encoder.exists()
    assert contents(folder.path) == before
    folder.pretext_scores.unlink()
    assert resume().code == 0
    assert contents(folder.path) == before


@pytest.mark.slow
def test_a_sweep_makes_scores_and_tables_again(started, caplog):
    folder, resume = started("finetune", **OF_SWEEP, test_split=0.25, val_split=0.3, exp_splits=[100], repetitions=1)
    before = contents(folder.path)
    job = folder.job("100_random_0")
    damages = [(job.scores, "[]"), (job.scores, '{"best_val_loss": 1, "scores": [["nobody", "dice", 1]]}')]
    for path, text in [*damages, (folder.results, None), (folder.leakage, "[]")]:
        path.write_text(text) if text else path.unlink()
        if path == folder.leakage:
            folder.mark("running")
        assert resume().code == 0
        assert contents(folder.path) == before
    assert "100_random_0 is scored again" in caplog.text and "is missing or damaged" in caplog.text
    folder.mark("running")
    folder.split.write_text('{"train": []}')
    ended = resume()
    assert ended.code == 2 and ended.err.count("\n") == 1 and "split.json: train: " in ended.err
    assert job.scores.exists()
