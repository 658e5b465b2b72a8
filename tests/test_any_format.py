"""A scan trains alike and is segmented alike in every format and orientation, and its mask lies on its own grid."""

from __future__ import annotations

from pathlib import Path

import keras
import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks import losses
from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.formats import read_image, read_mask
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.inference import predict_case, predictor
from self_supervised_3d_tasks.models.decoders.unet import unet as decode
from self_supervised_3d_tasks.models.encoders.unet import unet
from self_supervised_3d_tasks.scores.segmentation import dice
from tests.data.formats.dicom_files import save, slices
from tests.data.formats.test_orientations import ORIENTATIONS, OTHERS, SUFFIXES

SPACING = np.array([0.75, 1.25, 2.5])
DATA = Path(__file__).parents[1] / "DATA"  # real scans, where somebody has put them
REAL = {
    "hippocampus": ("hippocampus/images", "hippocampus/labels"),
    "head_neck_ct": ("head_neck_ct/train/ct", "head_neck_ct/train/oar"),
}
# Models of these shapes: whole scans, crops, and crops at another spacing.
PREPARATIONS = {
    "resized": {"volume_fitting": "resize"},
    "cropped": {"volume_fitting": "crop"},
    "resampled": {"volume_fitting": "crop", "target_spacing": (1.5, 1.0, 2.0)},
}


def synthetic() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.integers(-500, 1500, (9, 10, 8)).astype(np.int16)
    return image, (image > 0) + (image > 900).astype(np.uint8)


def real(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A scan and its mask as int16 on canonical axes; skipped where there is none."""
    folders = [DATA / folder for folder in REAL[name]]
    if not all(folder.is_dir() for folder in folders):
        pytest.skip(f"needs DATA/{REAL[name][0]}")
    path = sorted(folders[0].glob("*.nii.gz"))[0]
    image, labels = (formats.read_image(folder / path.name, 3).array[..., 0] for folder in folders)
    if image.dtype != np.int16:
        image = np.round(image * min(1, 30000 / np.abs(image).max())).astype(np.int16)
    return image, labels.astype(np.uint8)


def canonical_affine() -> np.ndarray:
    return nib.affines.from_matvec(np.diag(SPACING), (-31.5, 20.25, 7))


def stored_as(orientation: str, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine (RAS) of a scan on other axes; `nibabel`'s, which the other tests do not use for this."""
    image = nib.Nifti1Image(array, canonical_affine())
    ornt = nib.orientations.axcodes2ornt(orientation)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.orientations.io_orientation(image.affine), ornt))
    return np.ascontiguousarray(turned.dataobj), turned.affine


def write_dicom(folder: Path, stored: np.ndarray, affine: np.ndarray) -> Path:
    """Slices along the third stored axis; one that is left-handed is written from its other end."""
    lps = np.diag([-1, -1, 1, 1]) @ affine
    if np.linalg.det(lps[:3, :3]) < 0:
        lps = lps @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, stored.shape[2] - 1], [0, 0, 0, 1]])
        stored = stored[:, :, ::-1]
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = (lps[:3, :3] / spacing).T
    datasets = slices(stored, directions=tuple(directions[:2].ravel()), spacing=spacing)
    for number, ds in enumerate(datasets):
        ds.ImagePositionPatient = np.round((lps @ [0, 0, number, 1])[:3], 6).tolist()
    return save(datasets, folder)


def write(path: Path, name: str, stored: np.ndarray, affine: np.ndarray) -> Path:
    if name == "dicom":
        return write_dicom(path.with_suffix(""), stored, affine)
    OTHERS[name][0](path, stored, affine)
    return path


def identity(labels: int):
    """A model whose answer is the input: brightness in [0, 1] is cut into equal parts, one per label."""

    def predict(batch: np.ndarray) -> np.ndarray:
        return np.eye(labels, dtype=np.float32)[np.minimum(batch[..., 0] * labels, labels - 1).astype(int)]

    return predict


def trained(store: VolumeStore, labels: int):
    """A U-Net after a few steps on the only scan of a store."""
    keras.utils.set_random_seed(0)
    image, mask = store.image(0), store.mask(0)
    encoder = unet(image.shape, num_layers=2, enc_filters=4, seed=0)
    model = decode(encoder, num_classes=labels, seed=1)
    model.compile(keras.optimizers.Adam(0.01), losses.get("dice_crossentropy"))
    model.fit(image[None], mask[None], epochs=150, verbose=0)
    return predictor(model)


def compare(folder: Path, image, labels, kinds, keys: dict, data_dim, *, train: bool = False) -> float:
    """Compare each way to store the scan with the first, canonical NIfTI; return the Dice of the foreground."""
    preprocessing = Preprocessing(data_dim, 1, intensity_scaling="percentiles", **keys)
    expected, classes = None, int(labels.max()) + 1 if train else 3
    for number, (name, suffix, orientation) in enumerate([("nifti", ".nii.gz", "RAS"), *kinds]):
        here = folder / str(number)
        here.mkdir()
        scan = write(here / f"scan{suffix}", name, *stored_as(orientation, image))
        truth = here / f"truth{formats.of(scan).MASK_SUFFIXES[0]}"
        formats.write_mask(truth, labels, scan)
        store = VolumeStore([Case("scan", scan, truth, "scan")], preprocessing, num_classes=int(labels.max()) + 1)
        if expected is None:
            predict = trained(store, classes) if train else identity(classes)
        found = predict_case(predict, read_image(scan, 3), preprocessing, num_classes=classes)
        answer = here / f"answer{formats.of(scan).MASK_SUFFIXES[0]}"
        formats.write_mask(answer, found, scan)
        result = store.image(0), store.mask(0), read_mask(answer, 3).array
        score = dice(result[2] > 0, read_mask(truth, 3).array > 0)
        if expected is None:
            expected = (*result, score)
        for array, first in zip((*result, score), expected, strict=True):
            np.testing.assert_array_equal(array, first, err_msg=f"{name} {suffix} {orientation}")
        assert formats.read_mask_header(answer, 3).shape[:3] == image.shape
        formats.check_same_grid(formats.read_header(scan, 3), formats.read_mask_header(answer, 3))
    return expected[-1]


KINDS = [(*kind, orientation[:3]) for kind in [*sorted(SUFFIXES), ("dicom", "")] for orientation in ORIENTATIONS]


@pytest.mark.parametrize("preparation", PREPARATIONS)
def test_a_synthetic_scan(tmp_path: Path, preparation: str) -> None:
    assert compare(tmp_path, *synthetic(), KINDS, PREPARATIONS[preparation], (8, 8, 8)) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("preparation", PREPARATIONS)
@pytest.mark.parametrize("name", REAL)
def test_a_real_scan(tmp_path: Path, name: str, preparation: str) -> None:
    assert compare(tmp_path, *real(name), KINDS, PREPARATIONS[preparation], (48, 48, 48)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_trained_model_on_a_real_scan(tmp_path: Path, name: str) -> None:
    """Its Dice is that on the NIfTI file to the last digit, and is that of a model which has learned something."""
    scan, labels = real(name)
    labels = (labels > 0).astype(np.uint8)
    score = compare(tmp_path, scan, labels, KINDS, PREPARATIONS["resized"], (48, 48, 48), train=True)
    assert score > 0.5
