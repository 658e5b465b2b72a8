"""A dry run finds what the run then finds, as far as headers and a sample of the scans tell."""

from __future__ import annotations

import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.models.encoders.unet import unet
from self_supervised_3d_tasks.pretraining.plan import plan

NETWORK = {"num_layers": 2, "enc_filters": 2, "pooling": "none", "head_units": [8]}
TRAIN = {"algorithm": "rotation", "dataset_name": "nifti", "data_dir": "images", "data_dim": 8, "tensorboard": False}
TRAIN |= NETWORK | {"epochs": 1, "train_val_split": 0.7}
FINETUNE = {"algorithm": "rotation", "dataset_name": "nifti", "data_dir_train": "images", "data_dim": 8}
FINETUNE |= {"num_classes": 3, "exp_splits": [100], "repetitions": 1, "epochs_initialized": 0, "epochs_random": 1}
FINETUNE |= {"val_split": 0.25, "test_split": 0.3, "tensorboard": False, "num_layers": 2, "enc_filters": 2}
FINETUNE |= {"pooling": "none"}


def scan(seed):
    """Return a scan with two bright balls, one inside the other, and its mask of the classes 0, 1 and 2."""
    rng = np.random.default_rng(seed)
    distance = np.sqrt(
        sum((axis - middle) ** 2 for axis, middle in zip(np.indices((12, 12, 12)), (6, 5, 6), strict=True))
    )
    mask = (distance < 5).astype(np.uint8) + (distance < 3)
    return (100 * mask + rng.normal(0, 5, mask.shape)).astype(np.float32), mask


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """Be in a folder with six scans and their masks."""
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        for folder, array in zip(("images", "images_labels"), scan(number), strict=True):
            put(tmp_path / folder / f"s{number}.nii.gz", array)
    return tmp_path


def put(path, array):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def change(folder, how, numbers=range(6)):
    """Write what a function makes of the arrays in a folder."""
    for number in numbers:
        path = folder / f"s{number}.nii.gz"
        put(path, how(np.array(nib.load(path).dataobj)))


@pytest.fixture
def dry_run(run_command, cohort):
    def run(command, *flags, **keys):
        path = cohort / f"{command}.json"
        path.write_text(json.dumps((TRAIN if command == "train" else FINETUNE) | keys))
        return run_command(command, path, *(flags or ["--dry_run"]))

    return run


def window(cohort):
    change(cohort / "images", lambda image: ((image - image.min()) / np.ptp(image)).astype(np.float32))


def fractions(cohort):
    change(cohort / "images_labels", lambda mask: (mask * 0.6).astype(np.float32))


def empty(cohort):
    change(cohort / "images_labels", lambda mask: mask * 0)


def other_channels(cohort):
    change(cohort / "images", lambda image: np.stack([image, image], axis=-1), [4])


def one_channel_less(cohort):
    for number in range(6):
        for channel in ("t1", "t2"):
            shutil.copy(cohort / "images" / f"s{number}.nii.gz", cohort / "images" / f"s{number}_{channel}.nii.gz")
        (cohort / "images" / f"s{number}.nii.gz").unlink()
    (cohort / "images" / "s4_t2.nii.gz").unlink()


def high_label(cohort):
    change(cohort / "images_labels", lambda mask: np.where(mask == 2, 5, mask).astype(np.uint8), [3])


def nan(cohort):
    change(cohort / "images", lambda image: np.where(image > 150, np.nan, image), [2])


def truncated(cohort):
    path = cohort / "images" / "s5.nii.gz"
    path.write_bytes(path.read_bytes()[:-50])


CHANNELS = {"channel_suffixes": ["_t1", "_t2"], "number_channels": 2}
FAULTS = [
    ("train", window, {"intensity_window": [100, 400]}, "intensity_window: nothing is left to see in s"),
    ("finetune", window, {"intensity_window": [100, 400]}, "intensity_window: nothing is left to see in s"),
    ("finetune", fractions, {}, "s0.nii.gz: has the value .*, expected whole numbers as labels"),
    ("finetune", empty, {}, "images_labels, label_map: all .* masks for training and validation hold class 0 alone"),
    ("train", other_channels, {}, "s4.nii.gz: has 2 channels .* expected number_channels = 1"),
    ("finetune", other_channels, {}, "s4.nii.gz: has 2 channels .* expected number_channels = 1"),
    ("train", one_channel_less, CHANNELS, "s4.*_t2"),
    ("finetune", high_label, {}, "s3.nii.gz: has label 5, expected 0 to 2"),
    ("train", nan, {}, "s2.nii.gz: .* voxels are NaN or infinite"),
    ("train", truncated, {}, "s5.nii.gz: cannot be read"),
]


@pytest.mark.parametrize("flag", ["--dry_run", pytest.param("--nodry_run", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("command", "fault", "keys", "message"),
    FAULTS,
    ids=[f"{fault.__name__}-{command}" for command, fault, *_ in FAULTS],
)
def test_a_dry_run_finds_what_the_run_finds(command, fault, keys, message, flag, cohort, dry_run):
    fault(cohort)
    ended = dry_run(command, flag, **keys)
    assert ended.code == 2, ended
    assert ended.err.startswith("error: ") and re.search(message, ended.err.replace("\n", " ")), ended.err
    assert not list(cohort.glob("runs/*")), "a run folder is left"


def test_a_dry_run_says_what_it_looked_at_and_leaves_nothing(cohort, dry_run):
    before = sorted(cohort.rglob("*"))
    ended = dry_run("train")
    assert ended.code == 0
    assert "sample           4 of 4 training and 2 of 2 validation scans were read and prepared" in ended.out
    ended = dry_run("finetune", cache="disk")
    assert ended.code == 0
    assert "sample           6 of 6 scans were read and prepared, whose masks have the classes 0, 1, 2;" in ended.out
    assert [path for path in sorted(cohort.rglob("*")) if path.suffix != ".json"] == before


def test_an_encoder_of_another_shape_is_found(cohort, dry_run):
    (cohort / "pre").mkdir()
    unet((8, 8, 8, 1), enc_filters=4, num_layers=2, pooling="none").save(cohort / "pre" / "encoder.keras")
    ended = dry_run("finetune", model_checkpoint="pre", epochs_initialized=3)
    assert ended.code == 2
    assert ended.err.startswith("error: encoder weights from pre: 0 of 24 tensors matched")


@pytest.mark.parametrize(("fault", "sentence"), [(nan, "s2"), (truncated, "s5"), (other_channels, "s4")])
def test_bad_scans_that_are_skipped_stop_no_dry_run(fault, sentence, cohort, dry_run, caplog):
    fault(cohort)
    for command in ("train", "finetune"):
        caplog.clear()
        ended = dry_run(command, on_bad_file="skip")
        assert ended.code == 0, ended
        assert f"Skipped {sentence}: " in caplog.text
    assert "sample           5 of 6 scans were read" in ended.out


def test_the_only_validation_scan_is_named_as_such(cohort, dry_run):
    (cohort / "train.json").write_text(json.dumps(TRAIN | {"train_val_split": 0.9}))
    (case,) = plan(load_experiment("train", cohort / "train.json")).validation
    case.image.write_bytes(case.image.read_bytes()[:-40])
    ended = dry_run("train", train_val_split=0.9, on_bad_file="skip")
    assert ended.code == 2
    line, reason = ended.err.splitlines()
    assert line == (
        "error: The only validation scan cannot be used. Repair what is named here, or remove it, so that the scans "
        "are split anew."
    )
    assert f"{case.image}: cannot be read" in reason


@pytest.mark.parametrize("label_map", [{"1": 1, "7": 2}, {"7": 1, "2": 2, "9": 0}])
def test_entries_of_label_map_that_do_nothing_are_named(label_map, cohort, dry_run, caplog):
    ended = dry_run("finetune", label_map=label_map)
    absent = ", ".join(label for label in ("7", "9") if label in label_map)
    assert ended.code == 0
    assert re.search(rf"label_map: none of the \d masks for training and validation has label {absent}, ", caplog.text)


def test_a_label_map_without_fault_is_not_spoken_of(cohort, dry_run, caplog):
    assert dry_run("finetune", label_map={"1": 2, "2": 1}).code == 0
    assert "label_map" not in caplog.text


def test_entries_of_label_map_that_no_row_of_a_table_has_are_named(cohort, dry_run, caplog):
    rows = [f"s{number},{number % 3}" for number in range(6)]
    (cohort / "labels.csv").write_text("\n".join(["image,label", *rows]))
    keys = {"prediction_architecture": "softmax", "csv_file": "labels.csv", "label_column": "label"}
    keys |= {"image_column": "image", "label_map": {"2": 1, "5": 0}, "num_classes": 2}
    assert dry_run("finetune", **keys).code == 0
    assert "label_map: none of the labels of csv_file has label 5, whose entries do nothing" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("part", ["images", "images_labels"])
def test_a_sweep_with_a_bad_test_scan_that_is_skipped_ends_with_its_tables(part, cohort, dry_run):
    """The scan is skipped in the scores and in what is said below the tables."""
    put(cohort / "test" / "t0.nii.gz", scan(10)[0])
    put(cohort / "test" / "t1.nii.gz", scan(11)[0])
    for number in (10, 11):
        put(cohort / "test_labels" / f"t{number - 10}.nii.gz", scan(number)[1])
    bad = cohort / part.replace("images", "test") / "t1.nii.gz"
    bad.write_bytes(bad.read_bytes()[:-50])
    ended = dry_run("finetune", "--nodry_run", data_dir_test="test", on_bad_file="skip", run_name="run")
    assert ended.code == 0, ended
    assert "t0" in (cohort / "runs" / "run" / "results_long.csv").read_text()
    assert "t1" not in (cohort / "runs" / "run" / "results_long.csv").read_text()


@pytest.mark.slow
def test_empty_files_of_a_cache_are_made_again(cohort, dry_run, caplog):
    for name in ("one", "two"):
        ended = dry_run("finetune", "--nodry_run", cache="disk", run_name=name)
        assert ended.code == 0, ended
        assert name == "one" or "is damaged; it is made again" in caplog.text
        files = list((cohort / "runs" / "cache").iterdir())
        assert files
        for file in files:
            file.write_bytes(b"")
    one, two = ((cohort / "runs" / name / "results_long.csv").read_text() for name in ("one", "two"))
    assert one == two
