"""Physical spacing: what resampling does to scans and masks, and what is said of voxels that differ."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from self_supervised_3d_tasks.data.preparing.spacing import median_spacing, warn_of_grids
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.volumes import Header, Volume
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.finetuning import plan as finetuning_plan
from self_supervised_3d_tasks.pretraining import plan as pretraining_plan


def affine(spacing) -> np.ndarray:
    return np.diag([*spacing, *[1.0] * (4 - len(spacing))])


def header(shape, spacing, name: str = "a.nii.gz") -> Header:
    return Header((*shape, 1), Path(name), affine(spacing), tuple(spacing))


def volume(array: np.ndarray, spacing) -> Volume:
    return Volume(array, affine(spacing), tuple(spacing), Path("a.nii.gz"))


def ball(shape, spacing, radius: float) -> np.ndarray:
    """A ball of ``radius`` mm in the middle of a field of view, sampled at the centres of its voxels."""
    grids = [(np.arange(n) + 0.5) * s - n * s / 2 for n, s in zip(shape, spacing, strict=True)]
    distance = sum(grid**2 for grid in np.meshgrid(*grids, indexing="ij"))
    return (distance < radius**2).astype(np.int32)


def resampling(target, data_dim=(8, 8, 8), **options) -> Preprocessing:
    options = {"volume_fitting": "crop", "intensity_window": (0, 1)} | options
    return Preprocessing(data_dim, 1, target_spacing=target, **options)


@pytest.mark.parametrize("target", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.5)])
def test_the_same_body_is_the_same_tensor_whatever_its_voxels(target):
    """A field of view of 24 mm at four samplings: as many voxels, and a ball of the same volume in mm³."""
    preprocessing, sizes = resampling(target), set()
    for spacing in ((1, 1, 1), (0.5, 1, 2), (2, 2, 1), (1.5, 0.75, 3)):
        shape = [round(24 / s) for s in spacing]
        labels = ball(shape, spacing, 8)
        image, placement = preprocessing.prepare(volume(labels[..., None].astype(np.float32), spacing))
        mask = preprocessing.mask(volume(labels, spacing), 2, placement)
        sizes.add(image.shape)
        assert mask.shape == image.shape[:-1] == tuple(round(24 / t) for t in target)
        assert image.shape == preprocessing.fitted_shape(header(shape, spacing))
        measured = np.array([mask.sum(), image.sum()]) * np.prod(target)
        np.testing.assert_allclose(measured, 4 / 3 * np.pi * 8**3, rtol=0.1)
    assert len(sizes) == 1


def test_linear_samples_lie_at_the_centres_of_the_new_voxels():
    """A ramp along the first axis, 1 mm to 0.5 mm: each new voxel's value is that at its own centre."""
    ramp = np.tile(np.linspace(0, 1, 8, dtype=np.float32)[:, None, None, None], (1, 2, 2, 1))
    image = resampling((0.5, 1, 1), (1, 1, 1)).image(volume(ramp, (1, 1, 1)))
    centres = (np.arange(16) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(image[:, 0, 0, 0], np.interp(centres, np.arange(8), np.linspace(0, 1, 8)), atol=1e-6)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_fine_structure_is_smoothed_before_it_shrinks(interpolation):
    """Stripes of one voxel, at three times the spacing: their mean, not the stripe that is met by chance."""
    stripes = np.zeros((24, 3, 3, 1), np.float32)
    stripes[::2] = 1
    image = resampling((3, 1, 1), (1, 1, 1), interpolation=interpolation).image(volume(stripes, (1, 1, 1)))
    np.testing.assert_allclose(image[2:-2], 0.5, atol=0.12)


def test_cubic_is_sharper_than_linear_and_stays_in_range():
    draws = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(draws.normal(size=(24, 24, 24)), 2).astype(np.float32)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    coarse, errors = smooth[::2, ::2, ::2, None], {}
    centres = np.meshgrid(*[(np.arange(24) + 0.5) / 2 - 0.5] * 3, indexing="ij")
    expected = ndimage.map_coordinates(coarse[..., 0], centres, order=3, mode="nearest")[3:-3, 3:-3, 3:-3]
    for interpolation in ("linear", "cubic"):
        image = resampling((1, 1, 1), (1, 1, 1), interpolation=interpolation).image(volume(coarse, (2, 2, 2)))
        assert image.min() >= 0 and image.max() <= 1
        errors[interpolation] = np.abs(image[3:-3, 3:-3, 3:-3, 0] - expected).mean()
    assert errors["cubic"] < 0.2 * errors["linear"]


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.8, 1.2, 2.5), (3, 3, 3)])
@pytest.mark.parametrize("crop", ["none", "box"])
def test_a_mask_comes_back_to_the_scans_own_grid(spacing, crop):
    shape = [round(30 / s) for s in spacing]
    labels = ball(shape, spacing, 10) + ball(shape, spacing, 5)
    preprocessing = resampling((1, 1, 1), (40, 20, 20), foreground_crop=crop)
    _, placement = preprocessing.prepare(volume((labels > 0)[..., None].astype(np.float32), spacing))
    mask = preprocessing.mask(volume(labels, spacing), 3, placement)
    restored = np.argmax(placement.restore(np.eye(3, dtype=np.float32)[mask]), axis=-1)
    assert restored.shape == labels.shape
    for label in (1, 2):
        found, truth = restored == label, labels == label
        assert 2 * np.count_nonzero(found & truth) / (found.sum() + truth.sum()) > 0.9
    if spacing == (1, 1, 1):
        np.testing.assert_array_equal(restored, labels)


def test_two_dimensions():
    image = resampling((0.5, 1), (4, 4)).image(
        Volume(np.ones((6, 5, 1), np.float32), affine((1, 2)), (1, 2), Path("a.nii"))
    )
    assert image.shape == (12, 10, 1)


def test_scans_without_a_voxel_size_are_refused():
    array = Volume.without_affine(np.zeros((4, 4, 4, 1), np.float32), 3, Path("folder/scan.npy"))
    with pytest.raises(UserError, match=r"scan\.npy: target_spacing is set, but a \.npy file says nothing"):
        resampling((1, 1, 1)).image(array)


def test_a_spacing_in_the_wrong_unit_is_refused_before_memory_is_asked_for():
    with pytest.raises(UserError, match=r"a\.nii\.gz: at target_spacing 1 × 1 × 1 mm it would have .* 1e\+03 .*unit"):
        resampling((1, 1, 1)).fitted_shape(header((10, 10, 10), (1000, 1000, 1000)))


def test_the_median_is_per_axis_and_of_scans_that_know():
    headers = [header((4, 4, 4), spacing) for spacing in ((1, 1, 5), (0.5, 1, 3), (0.8, 2, 1))]
    assert median_spacing([*headers, Header((4, 4, 4, 1), Path("b.npy"))]) == (0.8, 1, 3)
    with pytest.raises(UserError, match='target_spacing: "median" needs scans that say'):
        median_spacing([Header((4, 4, 4, 1), Path("b.npy"))])


def test_mixed_voxels_are_told_with_their_range(caplog):
    mixed = [header((9, 9, 9), (1, 1, 1)), header((9, 9, 9), (1, 1, 3)), header((9, 9, 9), (1.05, 1, 2))]
    warn_of_grids(mixed, Preprocessing((8, 8, 8), 1))
    assert "3 scans differ in size: 1 to 1.05, 1 to 1, 1 to 3 mm" in caplog.text and "1 × 1 × 2 mm" in caplog.text
    caplog.clear()
    warn_of_grids(mixed, resampling((1, 1, 1)))
    warn_of_grids([mixed[0], header((9, 9, 9), (1.1, 1, 1))], Preprocessing((8, 8, 8), 1))
    assert not caplog.text


def test_windows_larger_than_the_scans_are_told_with_the_share_of_padding(caplog):
    """16 voxels against 8 on one axis of one of two scans: half of it, a quarter on average."""
    scans = [header((8, 16, 16), (1, 1, 1)), header((16, 16, 16), (1, 1, 1))]
    warn_of_grids(scans, Preprocessing((16, 16, 16), 1, volume_fitting="crop"))
    assert "(16, 16, 16) voxels are more than 1 of 2 scans have along some axis" in caplog.text
    assert "25 % of the voxels" in caplog.text and caplog.records[0].levelname == "WARNING"
    caplog.clear()
    warn_of_grids(scans, Preprocessing((8, 8, 8), 1, volume_fitting="crop"))
    warn_of_grids(scans, Preprocessing((16, 16, 16), 1, volume_fitting="resize"))
    assert not caplog.text


@pytest.fixture
def cohort(tmp_path):
    """Twelve labelled scans of a ball with a core, at voxels of 1, 1.5 and 3 mm by turns."""
    for number in range(12):
        spacing = [(1, 1, 1), (1.5, 1.5, 1.5), (1, 1, 3)][number % 3]
        shape = [round(24 / s) for s in spacing]
        labels = (ball(shape, spacing, 9) + ball(shape, spacing, 4)).astype(np.uint8)
        brighter = np.indices(shape)[0] / shape[0]  # from left to right, so that every part of a scan shows something
        for kind, array in (("scans", (labels + 0.1 + brighter).astype(np.float32)), ("masks", labels)):
            (tmp_path / kind).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, affine(spacing)), tmp_path / kind / f"case{number:02}.nii.gz")
    return tmp_path


def load(command, folder, **keys):
    values = {"algorithm": "rotation", "dataset_name": "nifti", "data_dim": 16, "num_layers": 1, "enc_filters": 2}
    (folder / "experiment.json").write_text(json.dumps(values | keys))
    return load_experiment(command, folder / "experiment.json")


def test_the_median_is_settled_before_anything_is_read(cohort):
    """It is that of the training scans, and stands in numbers where a run is repeated from its file."""
    experiment = load("train", cohort, data_dir=str(cohort / "scans"), target_spacing="median")
    with pytest.raises(ValueError, match="median of the scans is not known yet"):
        _ = experiment.preprocessing
    plan = pretraining_plan.plan(experiment)
    spacings = [nib.load(case.image).header.get_zooms() for case in plan.train]
    assert plan.experiment.target_spacing == np.median(spacings, axis=0).tolist()
    assert plan.experiment.preprocessing.target_spacing == tuple(plan.experiment.target_spacing)


def planned(cohort, **keys):
    paths = {"data_dir_train": str(cohort / "scans"), "label_dir_train": str(cohort / "masks"), "num_classes": 3}
    sweep = {"epochs_initialized": 0, "exp_splits": [100], "repetitions": 1, "class_names": ["air", "shell", "core"]}
    return finetuning_plan.plan(load("finetune", cohort, **paths, **sweep, **keys))


def test_a_dry_run_says_what_the_preparation_leaves_to_a_perfect_network(cohort):
    lines = {}
    for name, keys in {
        "native": {"volume_fitting": "crop"},
        "fine": {"target_spacing": 1.7},
        "coarse": {"target_spacing": 4},
    }.items():
        plan = planned(cohort, **keys)
        (lines[name],) = [line for line in plan.describe().splitlines() if line.startswith("ceiling")]
    assert "at most Dice 1.000" in lines["native"] and "(shell 1.000, core 1.000)" in lines["native"]
    dice = {name: float(line.split("Dice ")[1].split()[0]) for name, line in lines.items()}
    assert 1 > dice["fine"] > 0.9 and dice["coarse"] < 0.85


def test_mixed_voxels_are_told_by_a_dry_run(cohort, caplog):
    planned(cohort, volume_fitting="crop").check_headers()
    assert "12 scans differ in size: 1 to 1.5, 1 to 1.5, 1 to 3 mm" in caplog.text
