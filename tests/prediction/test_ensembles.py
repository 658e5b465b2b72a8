"""Averages of several models and of mirrored scans, against what each model says alone."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from self_supervised_3d_tasks.data.formats import read_image
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.prediction import load_predictor

JOBS = {"100_initialized_0": 0.3, "100_initialized_1": 0.4, "100_random_0": 0.9}
SEEDS = {"100_initialized_0": 1, "100_initialized_1": 2, "100_random_0": 4}
SHAPE = (12, 20, 16)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_run):
    """Two runs: whole scans that are resized, and crops."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"jobs": JOBS, "seeds": SEEDS, "num_classes": 3}
    resized = write_run(folder / "resized", **options)
    return resized, write_run(folder / "crops", volume_fitting="crop", **options)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A scan whose stored axes are permuted and flipped."""
    path = tmp_path_factory.mktemp("scans") / "scan.nii.gz"
    array = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    image = nib.Nifti1Image(array, np.diag([2.0, 1.5, 1.0, 1.0]))
    nib.save(image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]])), path)
    return path


def softmax(logits):
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


def alone(run, job, scan, flips=()):
    """Probabilities of one model of whole scans on canonical axes of its own grid."""
    predictor = load_predictor(run, job=job)
    preprocessing = predictor.experiment.preprocessing
    prepared, placement = preprocessing.prepare(read_image(scan, 3))
    image = np.flip(prepared, flips)
    logits = np.asarray(predictor.members[0].model.predict_on_batch(image[None].copy()), np.float64)[0]
    return placement.restore(np.flip(softmax(logits), flips).astype(np.float32))


def canonical(path):
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj)


def written_probabilities(predictor, scan, tmp_path):
    (mask,) = predictor.predict_path(scan, tmp_path / "out", probabilities=True)
    path = tmp_path / "out" / "scan_probabilities.nii.gz"
    source, image = nib.load(scan), nib.load(path)
    assert image.shape == (*source.shape, predictor.experiment.num_classes)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, source.affine)
    found = canonical(path)
    np.testing.assert_array_equal(canonical(mask), found.argmax(-1))
    return found


def test_jobs_of_a_run_are_averaged(runs, scan, tmp_path):
    predictor = load_predictor(runs[0], ensemble="all")
    assert len(predictor.groups) == 1
    expected = np.mean([alone(runs[0], job, scan) for job in JOBS], axis=0)
    np.testing.assert_allclose(written_probabilities(predictor, scan, tmp_path), expected, atol=1e-5)
    text = "models: 100_initialized_0, 100_initialized_1, 100_random_0 (every finished job)"
    assert predictor.describe() == text


def test_runs_with_preparations_of_their_own_are_averaged(runs, scan, tmp_path):
    predictor = load_predictor(*runs, ensemble="best")
    assert [group.weight for group in predictor.groups] == [0.5, 0.5]
    expected = np.mean([alone(runs[0], job, scan) for job in list(JOBS)[:2]], axis=0) / 2
    for job in list(JOBS)[:2]:
        (tmp_path / job).mkdir()
        expected += written_probabilities(load_predictor(runs[1], job=job), scan, tmp_path / job) / 4
    np.testing.assert_allclose(written_probabilities(predictor, scan, tmp_path), expected, atol=1e-5)
    reason = "100_initialized_0, 100_initialized_1 (all repetitions of the mode of 100_initialized_0: 100 % of the "
    assert predictor.describe().startswith(f"models: resized: {reason}")
    assert f"; crops: {reason}" in predictor.describe()


def test_mirror_images_are_averaged(runs, scan, tmp_path):
    predictor = load_predictor(runs[0], job="100_random_0", mirror=["z", "x"])
    expected = np.mean([alone(runs[0], "100_random_0", scan, flips) for flips in ((), (0,), (2,), (0, 2))], axis=0)
    assert np.abs(expected - alone(runs[0], "100_random_0", scan)).max() > 0.01
    np.testing.assert_allclose(written_probabilities(predictor, scan, tmp_path), expected, atol=1e-5)


@pytest.mark.parametrize(
    "keys",
    [
        {"augment": True, "augment_degrees": 10, "augment_swap_labels": [[1, 2]]},
        {"class_names": ["background", "Parotid_L", "Parotid_R"]},  # without a flip in training
    ],
)
def test_paired_organs_change_sides_with_the_scan(runs, scan, tmp_path, write_run, keys):
    keys = keys | {"num_classes": 3}
    run = write_run(tmp_path / "run", jobs={"100_random_0": 0.9}, seeds=SEEDS, **keys)
    found = written_probabilities(load_predictor(run, mirror=["x"]), scan, tmp_path)
    straight, flipped = (alone(run, "100_random_0", scan, flips) for flips in ((), (0,)))
    np.testing.assert_allclose(found, (straight + flipped[..., [0, 2, 1]]) / 2, atol=1e-5)


def test_the_largest_component_is_kept(runs, scan, tmp_path):
    from scipy.ndimage import label

    predictor = load_predictor(runs[0], largest_component="1,2")
    (before,) = load_predictor(runs[0]).predict_path(scan, tmp_path / "before")
    (after,) = predictor.predict_path(scan, tmp_path / "after")
    before, after = canonical(before), canonical(after)
    changed = 0
    for number in (1, 2):
        pieces, count = label(before == number)
        sizes = np.bincount(pieces.ravel())[1:]
        np.testing.assert_array_equal(after == number, pieces == 1 + sizes.argmax() if count else False)
        changed += count > 1
    assert changed


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_classes": 2}, r"num_classes: .*/resized has 3, but .*/other has 2; models that are averaged must"),
        ({"num_classes": 3, "number_channels": 2}, "number_channels: .* has 1, but .* has 2"),
        ({"num_classes": 3, "label_map": {"4": 2}}, "label_map: "),
        ({"num_classes": 3, "dataset_name": "npy"}, r"dataset_name: .* files that end in \.npy"),
    ],
)
def test_models_of_other_classes_or_channels_do_not_go_together(runs, tmp_path, write_run, keys, message):
    other = write_run(tmp_path / "other", jobs={"100_random_0": 0.9}, **keys)
    with pytest.raises(UserError, match=message):
        load_predictor(runs[0], other)


@pytest.mark.parametrize(("axes", "message"), [(["w"], "some of x,y,z, received 'w'"), (["x", "x"], "each axis once")])
def test_axes_that_there_are_not_are_named(runs, axes, message):
    with pytest.raises(UserError, match=f"--mirror: expected {message}"):
        load_predictor(runs[0], mirror=axes)


def test_a_side_without_a_counterpart_is_not_mirrored(tmp_path, write_run):
    names = ["background", "left atrium", "aorta"]
    run = write_run(tmp_path / "run", jobs={"100_random_0": 0.9}, num_classes=3, class_names=names)
    with pytest.raises(UserError, match="^--mirror: x exchanges left and right of left atrium, and no class .* leave"):
        load_predictor(run, mirror=["y", "x"])
    assert load_predictor(run, mirror=["y", "z"]).mirror == (1, 2)


def test_classes_of_whole_scans_have_no_counterpart(tmp_path, write_run):
    keys = {"csv_file": "table.csv", "image_column": "file", "label_column": "class", "num_classes": 3}
    keys |= {"prediction_architecture": "softmax", "class_names": ["none", "left knee", "right knee"]}
    run = write_run(tmp_path / "run", jobs={"100_random_0": 0.9}, **keys)
    with pytest.raises(UserError, match="^--mirror: x exchanges left and right of left knee, right knee"):
        load_predictor(run, mirror=["x"])


def test_photographs_are_mirrored_by_rows_and_columns_and_their_probabilities_are_arrays(tmp_path, write_run):
    keys = {"dataset_name": "images", "data_dim": [16, 24], "number_channels": 3, "num_classes": 3}
    run = write_run(tmp_path / "run", **keys)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)).save(tmp_path / "eye.png")
    with pytest.raises(UserError, match="some of rows,columns, received 'x'"):
        load_predictor(run, mirror=["x"])
    predictor = load_predictor(run, mirror=["columns"])
    (mask,) = predictor.predict_path(tmp_path / "eye.png", tmp_path / "out", probabilities=True)
    image = predictor.experiment.preprocessing.image(read_image(tmp_path / "eye.png", 2))
    model = predictor.members[0].model
    straight, flipped = (
        softmax(np.asarray(model.predict_on_batch(i[None].copy()))[0]) for i in (image, image[:, ::-1])
    )
    expected = (straight + flipped[:, ::-1]) / 2
    np.testing.assert_allclose(np.load(tmp_path / "out" / "eye_probabilities.npy"), expected, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(Image.open(mask)), expected.argmax(-1))


def test_tables_hold_the_mean_of_several_models(tmp_path, write_run):
    keys = {
        "dataset_name": "kaggle_retina",
        "csv_file": "table.csv",
        "data_dim": 16,
        "number_channels": 3,
        "num_classes": 3,
        "prediction_architecture": "softmax",
        "volume_fitting": "resize",
        "multilabel": False,
    }
    options = {"jobs": JOBS, "seeds": SEEDS}
    runs = [write_run(tmp_path / "a", **keys, **options)]
    runs.append(write_run(tmp_path / "b", **keys | {"intensity_window": [0, 100]}, **options))
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "in" / f"{name}.png")
    predictor = load_predictor(*runs, ensemble="100_initialized_0,100_random_0", mirror=["rows"])
    (written,) = predictor.predict_path(tmp_path / "in", tmp_path / "classes.csv")
    lines = [line.split(",") for line in written.read_text().splitlines()[1:]]
    assert [line[0] for line in lines] == ["one.png", "three.png", "two.png"]
    for name, label, _, *values in lines:
        mean = np.zeros(3)
        for member in predictor.members:
            image = member.experiment.preprocessing.image(read_image(tmp_path / "in" / name, 2))
            for seen in (image, image[::-1]):
                mean += softmax(np.asarray(member.model.predict_on_batch(seen[None].copy()), np.float64)[0]) / 8
        np.testing.assert_allclose(np.array(values, float), mean, atol=1e-5)
        assert int(label) == mean.argmax()
    for options, message in [({"overlay": True}, "--overlay"), ({"probabilities": True}, "--probabilities: the table")]:
        with pytest.raises(UserError, match=message):
            list(predictor.predict_path(tmp_path / "in", tmp_path / "more.csv", **options))
    with pytest.raises(UserError, match="--largest_component: this model gives no masks"):
        load_predictor(runs[0], largest_component="all")
