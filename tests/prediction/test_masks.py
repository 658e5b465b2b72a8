"""Masks of new scans with the run folder of a finetuning."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from self_supervised_3d_tasks.data.formats import read_image, read_mask
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.json_files import read_json, write_json
from self_supervised_3d_tasks.prediction import load_predictor

SHAPE = (14, 20, 10)
SPACING = (0.8, 1.25, 3.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_run):
    return write_run(tmp_path_factory.mktemp("finetuning"))


@pytest.fixture(scope="module")
def predictor(run):
    return load_predictor(run)


def scan(shape=SHAPE, seed=0):
    """Smooth noise on canonical axes, turned by a few degrees, with anisotropic voxels."""
    from scipy.ndimage import gaussian_filter

    array = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    tilt = np.array([[np.cos(0.1), -np.sin(0.1), 0], [np.sin(0.1), np.cos(0.1), 0], [0, 0, 1]])
    affine = nib.affines.from_matvec(tilt @ np.diag(SPACING), [-30.0, 12.5, 7.0])
    return nib.Nifti1Image((1000 * array).astype(np.int16), affine)


def turned(image):
    """The same scan as another scanner stores it: axes permuted, two of them flipped."""
    return image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))


@pytest.fixture
def folder(tmp_path):
    """A folder with one scan, stored in two ways."""
    (tmp_path / "in").mkdir()
    nib.save(scan(), tmp_path / "in" / "canonical.nii.gz")
    nib.save(turned(scan()), tmp_path / "in" / "turned.nii")
    return tmp_path


def canonical_voxels(path):
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


def test_masks_lie_on_their_scans_however_those_are_stored(folder, predictor):
    written = list(predictor.predict_path(folder / "in", folder / "out"))
    assert written == [folder / "out" / "canonical.nii.gz", folder / "out" / "turned.nii.gz"]
    for source, target in zip(sorted((folder / "in").iterdir()), written, strict=True):
        before, after = nib.load(source), nib.load(target)
        assert after.shape == before.shape
        np.testing.assert_array_equal(after.affine, before.affine)
        assert after.header.get_zooms() == before.header.get_zooms()
        assert after.get_data_dtype() == np.uint8
    assert nib.load(written[1]).shape != SHAPE
    one, other = map(canonical_voxels, written)
    assert set(np.unique(one)) == {0, 1}
    np.testing.assert_array_equal(one, other)


def test_a_file_goes_to_a_file_or_into_a_folder(folder, predictor):
    source = folder / "in" / "turned.nii"
    assert list(predictor.predict_path(source, folder / "deep" / "mask.nii")) == [folder / "deep" / "mask.nii"]
    assert list(predictor.predict_path(source, folder / "out", overlay=True)) == [folder / "out" / "turned.nii.gz"]
    np.testing.assert_array_equal(
        canonical_voxels(folder / "deep" / "mask.nii"), canonical_voxels(folder / "out" / "turned.nii.gz")
    )
    assert (folder / "out" / "turned.png").stat().st_size > 0


def test_the_default_job_has_most_labels_then_the_lowest_validation_loss(run, predictor):
    assert predictor.members[0].name == "100_initialized_1"
    assert load_predictor(run, job="050_random_0").members[0].name == "050_random_0"


def test_an_unknown_job_names_the_nearest(run):
    with pytest.raises(UserError, match=r"--job: .*050_randm_0 holds no model\.keras\. Did you mean '050_random_0'\?"):
        load_predictor(run, job="050_randm_0")


def test_a_model_that_was_pretrained_on_other_intensities_says_so(tmp_path, write_run, caplog):
    pretraining = tmp_path / "pretrained"
    pretraining.mkdir()
    run = write_run(tmp_path, model_checkpoint=str(pretraining))
    write_json(run / "status.json", {"status": "finished"})
    load_predictor(run)
    assert caplog.text == ""
    stored = read_json(run / "config.json")
    write_json(pretraining / "config.json", stored | {"intensity_window": [-100, 240]})
    load_predictor(run)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{run}: the scans are prepared otherwise")
    assert record.getMessage().endswith(":\n  intensity_window: null, in the pretraining [-100, 240]")


def test_folders_that_cannot_predict_are_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: not the run folder of a finetuning"):
        load_predictor(tmp_path)
    (tmp_path / "jobs").mkdir()
    with pytest.raises(UserError, match=r"config\.json: no such"):
        load_predictor(tmp_path)


def test_without_a_finished_job_the_remedy_is_told(run, tmp_path):
    shutil.copy(run / "config.json", tmp_path)
    (tmp_path / "jobs" / "100_random_0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no job has finished; run finetune\.py with --resume"):
        load_predictor(tmp_path)


def test_nothing_is_overwritten_and_resume_goes_on_behind_it(folder, predictor):
    existing = folder / "out" / "turned.nii.gz"
    existing.parent.mkdir()
    existing.write_text("a mask corrected by hand")
    with pytest.raises(UserError, match=rf"{existing}: exists already; .*--resume"):
        list(predictor.predict_path(folder / "in", folder / "out"))
    assert list(existing.parent.iterdir()) == [existing]
    assert list(predictor.predict_path(folder / "in", folder / "out", resume=True)) == [
        folder / "out" / "canonical.nii.gz"
    ]
    assert existing.read_text() == "a mask corrected by hand"


def test_masks_inside_the_folder_of_the_scans_are_no_scans(folder, predictor):
    """Else a second run would give them masks of their own, and the scans other names."""
    inside = folder / "in" / "masks"
    written = sorted(predictor.predict_path(folder / "in", inside))
    assert written == [inside / "canonical.nii.gz", inside / "turned.nii.gz"]
    assert list(predictor.predict_path(folder / "in", inside, resume=True)) == []
    assert sorted(inside.iterdir()) == written


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("two.nii.gz", np.zeros((8, 8, 8, 2), np.float32), "has 2 channels"),
        ("flat.nii", np.zeros((8, 8), np.float32), "expected 3 spatial axes"),
        ("scan.txt", None, r"expected an image like those .*\.mgz, .*\.nii, \.nii\.gz"),
        ("absent.nii", None, "no such file or folder"),
    ],
)
def test_unusable_input_is_named_before_anything_is_written(folder, predictor, name, array, message):
    path = folder / name
    if array is not None:
        nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    elif name == "scan.txt":
        path.touch()
    with pytest.raises(UserError, match=f"{name}: .*{message}"):
        list(predictor.predict_path(path, folder / "out"))
    assert not (folder / "out").exists()


def test_a_damaged_model_is_named(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    model = copied / "jobs" / "100_frozen_0" / "model.keras"
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"100_frozen_0/model\.keras: truncated"):
        load_predictor(copied, job="100_frozen_0")


def test_crops_predict_a_scan_by_sliding_windows(run, folder, monkeypatch):
    predictor = load_predictor(run, overrides=["volume_fitting=crop", "overlap=0.5"])
    image = scan((24, 16, 12))
    nib.save(turned(image), folder / "long.nii.gz")
    windows = []
    predict_on_batch = predictor.members[0].model.predict_on_batch

    def watched(batch):
        windows.append(batch.copy())
        return predict_on_batch(batch)

    monkeypatch.setattr(predictor.members[0].model, "predict_on_batch", watched)
    (written,) = predictor.predict_path(folder / "long.nii.gz", folder / "out")
    fitted = predictor.experiment.preprocessing.image(read_image(folder / "long.nii.gz", 3))
    assert fitted.shape == (24, 16, 16, 1)
    assert len(windows) == 2
    for window, start in zip(windows, (0, 8), strict=True):
        np.testing.assert_array_equal(window[0], fitted[start : start + 16])
    assert nib.load(written).shape == turned(image).shape
    # Where only the first window looks, the mask is what the model says of it alone.
    logits = predict_on_batch(windows[0])[0]
    np.testing.assert_array_equal(canonical_voxels(written)[:8], np.argmax(logits, axis=-1)[:8, :, 2:14])


@pytest.fixture(scope="module")
def of_photographs(tmp_path_factory, write_run):
    keys = {"dataset_name": "images", "data_dim": [16, 24], "number_channels": 3, "num_classes": 3}
    return load_predictor(write_run(tmp_path_factory.mktemp("photographs"), **keys))


@pytest.fixture(scope="module")
def of_slices(tmp_path_factory, write_run):
    keys = {"dataset_name": "pancreas2d", "data_dim": [16, 24], "num_classes": 3}
    return load_predictor(write_run(tmp_path_factory.mktemp("slices"), **keys))


def expected_mask(predictor, path):
    """What the model says of an image that has its size."""
    image = predictor.experiment.preprocessing.image(read_image(path, 2))
    return np.argmax(predictor.members[0].model.predict_on_batch(image[np.newaxis])[0], axis=-1)


def test_photographs_become_png_masks(of_photographs, tmp_path, caplog):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("eye1.jpg", "eye2.PNG", "eye3.tif"):
        pixels = rng.integers(0, 256, (16, 24, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    written = list(of_photographs.predict_path(tmp_path / "in", tmp_path / "out", overlay=True))
    assert written == [tmp_path / "out" / f"eye{number}.png" for number in (1, 2, 3)]
    for source, target in zip(sorted((tmp_path / "in").iterdir()), written, strict=True):
        mask = read_mask(target, 2).array
        np.testing.assert_array_equal(mask, expected_mask(of_photographs, source))
        assert len(np.unique(mask)) > 1
    pictures = set((tmp_path / "out").iterdir()) - set(written)
    assert pictures == {path.with_name(f"{path.stem}_overlay.png") for path in written}
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert of_photographs.plan(tmp_path / "in", tmp_path / "out", resume=True).jobs == []
    (alone,) = of_photographs.predict_path(tmp_path / "in" / "eye1.jpg", tmp_path / "alone.png")
    assert alone.read_bytes() == written[0].read_bytes()


@pytest.mark.parametrize("resume", [False, True])
def test_a_mask_does_not_stand_in_the_place_of_its_photograph(of_photographs, tmp_path, resume):
    Image.new("RGB", (24, 16)).save(tmp_path / "eye.png")
    for source in (tmp_path, tmp_path / "eye.png"):
        with pytest.raises(UserError, match=r"eye\.png: is the scan itself; choose another OUTPUT"):
            of_photographs.plan(source, tmp_path, resume=resume)


def test_an_overlay_does_not_stand_in_the_place_of_a_mask(of_photographs, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("eye.png", "eye_overlay.png"):
        Image.new("RGB", (24, 16)).save(tmp_path / "in" / name)
    with pytest.raises(UserError, match=r"--overlay: .*eye_overlay\.png is a mask"):
        list(of_photographs.predict_path(tmp_path / "in", tmp_path / "out", overlay=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["mask.jpg", "mask.npy", "mask.nii.gz"])
def test_a_mask_of_another_kind_is_refused(of_photographs, tmp_path, name):
    Image.new("RGB", (24, 16)).save(tmp_path / "eye.png")
    with pytest.raises(UserError, match=rf"{name}: the mask of eye\.png is a \.png file"):
        of_photographs.plan(tmp_path / "eye.png", tmp_path / name)


def test_arrays_become_arrays(of_slices, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        np.save(tmp_path / "in" / f"{name}.npy", rng.normal(size=(16, 24)).astype(np.float32))
    written = list(of_slices.predict_path(tmp_path / "in", tmp_path / "out", overlay=True))
    assert written == [tmp_path / "out" / "a.npy", tmp_path / "out" / "b.npy"]
    for path in written:
        np.testing.assert_array_equal(np.load(path), expected_mask(of_slices, tmp_path / "in" / path.name))
        assert path.with_suffix(".png").stat().st_size > 0
    (alone,) = of_slices.predict_path(tmp_path / "in" / "a.npy", tmp_path / "alone.npy")
    assert alone.read_bytes() == written[0].read_bytes()


def test_a_model_of_arrays_takes_nifti_scans_with_a_warning(tmp_path, write_run, caplog):
    (tmp_path / "run").mkdir()
    predictor = load_predictor(write_run(tmp_path / "run", dataset_name="npy", volume_fitting="resize"))
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "array.npy", np.random.default_rng(0).normal(size=SHAPE))
    (written,) = predictor.predict_path(tmp_path / "in", tmp_path / "out", overlay=True)
    assert written.name == "array.npy" and np.load(written).shape == SHAPE
    assert "axes have no directions" not in caplog.text
    nib.save(turned(scan()), tmp_path / "in" / "scan.nii")
    (written,) = predictor.predict_path(tmp_path / "in", tmp_path / "out", resume=True)
    assert written.name == "scan.nii.gz" and nib.load(written).shape == turned(scan()).shape
    assert "axes have no directions" in caplog.text
