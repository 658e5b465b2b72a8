"""Which axes of the scans differ by what was done to them, told from their headers."""

import json

import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.pretraining import plan as planning
from self_supervised_3d_tasks.pretraining.axes import unlike_axes
from self_supervised_3d_tasks.pretraining.scans import find_scans

RESIZED, CROPPED, EXACT = ({"volume_fitting": fitting} for fitting in ("resize", "crop", "exact"))
AT_1_MM = {"target_spacing": 1}


@pytest.fixture
def experiment(tmp_path):
    """An experiment on scans of the given shapes and voxel sizes (mm), filled with noise."""

    def write(scans, data_dim=24, **keys):
        folder = tmp_path / "scans"
        folder.mkdir()
        for number, (shape, spacing) in enumerate(scans):
            noise = np.random.default_rng(number).random(shape).astype(np.float32)
            nib.save(nib.Nifti1Image(noise, np.diag([*spacing, 1])), folder / f"case{number}.nii.gz")
        values = {"algorithm": "rotation", "dataset_name": "nifti", "data_dir": str(folder), "data_dim": data_dim}
        values |= {"num_layers": 1, "enc_filters": 2, "head_units": [4], "batch_size": 1, **keys}
        path = tmp_path / "experiment.json"
        path.write_text(json.dumps(values))
        return load_experiment("train", path)

    return write


def found(experiment):
    return unlike_axes(experiment, find_scans(experiment, experiment.data_dir))


CUBE, FLAT, ONES = (24, 24, 24), (24, 24, 12), (1, 1, 1)


@pytest.mark.parametrize(
    ("scans", "keys", "pairs", "uneven"),
    [
        ([(CUBE, ONES)], RESIZED, set(), set()),
        ([(CUBE, (2, 2, 2)), ((12, 12, 12), (0.7, 0.7, 0.7))], RESIZED, set(), set()),
        ([(FLAT, ONES)], RESIZED, {(0, 2), (1, 2)}, set()),  # enlarged along one axis
        ([(FLAT, (1, 1, 2))], RESIZED, {(0, 2), (1, 2)}, set()),  # which its spacing does not undo
        ([(CUBE, ONES), ((48, 24, 24), ONES)], RESIZED, {(0, 1), (0, 2)}, set()),  # one scan is enough
        ([(CUBE, (1, 1.5, 1))], EXACT, {(0, 1), (1, 2)}, set()),
        ([(CUBE, (1, 1.0005, 1))], EXACT, set(), set()),  # a rounding of the file
        ([((40, 24, 30), ONES)], CROPPED, set(), set()),  # no axis is padded
        ([((40, 24, 30), (1, 1, 3))], CROPPED, {(0, 2), (1, 2)}, set()),
        ([((20, 20, 20), ONES)], CROPPED, set(), set()),  # padded alike
        ([((24, 24, 20), ONES)], CROPPED, {(0, 2), (1, 2)}, set()),
        ([((24, 24, 21), ONES)], CROPPED, {(0, 2), (1, 2)}, {2}),  # one plane before, two behind
        ([((21, 21, 21), ONES)], CROPPED, set(), {0, 1, 2}),
        ([((30, 23, 24), ONES), ((24, 24, 19), ONES)], CROPPED, {(0, 1), (0, 2), (1, 2)}, {1, 2}),
        ([((48, 48, 48), (0.7, 0.7, 0.7)), ((24, 24, 24), ONES)], AT_1_MM, set(), set()),  # resampled alike
        ([((35, 36, 37), (0.9, 0.9, 0.9))], AT_1_MM, set(), set()),  # to whole voxels: rounding is no trace
        ([((30, 30, 10), (1, 1, 3))], AT_1_MM, {(0, 2), (1, 2)}, set()),  # three planes from one
        ([((40, 40, 40), ONES)], {"target_spacing": [1, 1, 2], "data_dim": [24, 24, 12]}, {(0, 2), (1, 2)}, set()),
        ([((20, 20, 21), ONES)], {"target_spacing": 0.5, "data_dim": 40}, set(), set()),
        ([((20, 20, 19), ONES)], {"target_spacing": 0.5, "data_dim": 40}, {(0, 2), (1, 2)}, set()),  # padded to 40
    ],
)
def test_pairs_and_uneven_axes(experiment, scans, keys, pairs, uneven):
    assert found(experiment(scans, **keys)) == (pairs, uneven)


def test_files_that_cannot_be_read_are_left_to_the_reader(experiment, tmp_path):
    one = experiment([(FLAT, ONES)], **RESIZED)
    (tmp_path / "scans" / "damaged.nii.gz").write_bytes(b"no scan")
    assert found(one) == ({(0, 2), (1, 2)}, set())


@pytest.mark.parametrize(("fitting", "classes"), [(RESIZED, 6), (CROPPED, 6)])
def test_a_plan_offers_no_turn_that_the_preparation_tells(experiment, fitting, classes):
    """Of ten classes the quarter turns that would exchange the enlarged, or padded, axis are left out."""
    plan = planning.plan(experiment([(FLAT, ONES)] * 4, **fitting))
    assert plan.algorithm.num_classes == classes
    assert all(k in (0, 2) or set(plane) == {0, 1} for k, plane in plan.algorithm.classes)
    model = plan.build_model()
    assert model.output_shape == (None, classes)
    (line,) = [line for line in plan.describe(model).splitlines() if line.startswith("turns ")]
    assert line == (
        "turns            4 classes are left out: axes 0 and 2 differ, axes 1 and 2 differ in spacing, resampling or "
        "padding would tell them"
    )


def test_cubes_keep_every_turn_in_silence(experiment):
    plan = planning.plan(experiment([(CUBE, ONES)] * 4, **RESIZED))
    assert plan.algorithm.num_classes == 10
    assert "turns " not in plan.describe(plan.build_model())


def test_who_insists_on_all_turns_is_told(experiment):
    plan = planning.plan(experiment([(FLAT, ONES)] * 4, **RESIZED, rotation_axes="all"))
    assert plan.algorithm.num_classes == 10
    assert "which tells 4 of 10 classes without the anatomy" in plan.describe(plan.build_model())


def test_no_turn_that_is_left_is_an_error(experiment):
    with pytest.raises(UserError, match="rotation_axes, data_dim, volume_fitting: no turn is left, because .* uneven"):
        planning.plan(experiment([((21, 21, 21), ONES)] * 4, **CROPPED))


def boxed(*shape):
    """A function that fills a scan with darkness around a box of noise in its middle."""

    def write(path):
        scan = nib.load(path)
        voxels = np.zeros(scan.shape, np.float32)
        starts = [(whole - part) // 2 for whole, part in zip(scan.shape, shape, strict=True)]
        inside = tuple(slice(start, start + part) for start, part in zip(starts, shape, strict=True))
        voxels[inside] = np.random.default_rng(0).uniform(0.5, 1, shape)
        nib.save(nib.Nifti1Image(voxels, scan.affine), path)

    return write


@pytest.mark.parametrize("kind", ["box", "inside"])
@pytest.mark.parametrize(
    ("box", "told"),
    [
        ((28, 26, 27), None),  # no axis of the box is padded
        ((19, 19, 19), r"\[19, 19, 19\] voxels are left and padded to \[24, 24, 24\]"),  # two before, three behind
        ((24, 24, 12), r"\[24, 24, 12\] voxels are left and padded to \[24, 24, 24\]"),
        ((20, 20, 20), None),  # padded alike
    ],
)
def test_what_a_foreground_crop_leaves_is_looked_at(experiment, tmp_path, kind, box, told):
    """The headers of the scans, of 30 voxels, say nothing of it."""
    one = experiment([((30, 30, 30), ONES)] * 4, **CROPPED, foreground_crop=kind, intensity_scaling="min_max")
    for path in (tmp_path / "scans").iterdir():
        boxed(*box)(path)
    plan = planning.plan(one)
    assert plan.algorithm.num_classes == 10
    if told is None:
        assert plan.check_sample().startswith("3 of 3 training and 1 of 1 validation")
        return
    message = f'^foreground_crop, data_dim: of case. {told}, which tells turns without .*"foreground_crop": "none"$'
    with pytest.raises(UserError, match=message):
        plan.check_sample()


def test_who_insists_on_all_turns_of_boxes_is_told(experiment, tmp_path, caplog):
    keys = {"foreground_crop": "box", "intensity_scaling": "min_max", "rotation_axes": "all"}
    one = experiment([((30, 30, 30), ONES)] * 4, **CROPPED, **keys)
    for path in (tmp_path / "scans").iterdir():
        boxed(24, 24, 12)(path)
    assert planning.plan(one).check_sample()
    assert "[24, 24, 12] voxels are left and padded to [24, 24, 24], which tells turns" in caplog.text
