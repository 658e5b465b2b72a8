"""Synthetic brain scans: the MNI152 template under a random deformation, contrast, noise and lesion."""

from dataclasses import dataclass

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.errors import UserError

scipy = lazy.load("scipy")

FIELD_OF_VIEW = 192.0  # mm per axis: the deepest axis of the template's brain measures 181 mm
BRAIN_CENTRE = (0.0, -17.0, 5.0)  # mm, centre of the template's brain in its world coordinates
CHANNEL_NAMES = ("T1-like", "FLAIR-like")
# Mean signal per channel of: grey matter, white matter, cerebrospinal fluid, lesion.
SIGNALS = ((0.62, 0.92, 0.22, 0.42), (0.66, 0.42, 0.14, 0.95))


@dataclass(frozen=True)
class Template:
    """The template's anatomy.

    Args:
        maps: ``(4, x, y, z)``: probabilities of grey matter, white matter and cerebrospinal fluid, and the T1
            intensity in [0, 1] less the three tissues' means (deep nuclei, brain stem), of either sign.
        affine: ``(4, 4)``, voxel index to mm.
    """

    maps: np.ndarray
    affine: np.ndarray


def load_template(spacing: float) -> Template:
    """Read the template and its tissue maps from the installed nilearn package.

    Args:
        spacing: Voxel size in mm that the maps will be sampled at. They are smoothed to it, against aliasing.

    Raises:
        UserError: nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        raise UserError(
            "the demo cohort is made from data inside the nilearn package, which is not installed: "
            "pip install 'self_supervised_3d_tasks[demo]'"
        ) from error
    image = datasets.load_mni152_template(resolution=1)
    intensity = image.get_fdata(dtype=np.float32)
    loaders = (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    grey, white = (load(resolution=1).get_fdata(dtype=np.float32) for load in loaders)
    fluid = np.clip((intensity > 0) - grey - white, 0, 1)
    tissues = np.stack([grey, white, fluid])
    means = [np.average(intensity, weights=tissue) for tissue in tissues]
    detail = intensity - np.einsum("t...,t->...", tissues, means)
    # In template voxels: nearly the blur of an average over one target voxel.
    sigma = 0.4 * spacing / abs(image.affine[0, 0])
    maps = [scipy.ndimage.gaussian_filter(array, sigma) for array in (*tissues, detail)]
    return Template(np.stack(maps).astype(np.float32), image.affine)


def make_subject(
    template: Template, size: int, channels: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one subject.

    Returns:
        Image ``(size, size, size, channels)`` int16, mask ``(size, size, size)`` uint8, affine ``(4, 4)``.
    """
    affine = draw_affine(size, rng)
    maps = deform(template, affine, size, rng)
    grey, white, fluid, _ = maps
    lesion = draw_lesion(white, rng) * np.clip(grey + white, 0, 1)  # lesions displace tissue, not fluid
    background = np.maximum(1 - grey - white, 0)
    labels = np.argmax([background, grey, white], axis=0).astype(np.uint8)
    labels[lesion > 0.5] = 3
    image = np.stack([draw_channel(maps, lesion, signals, rng) for signals in SIGNALS[:channels]], axis=-1)
    return np.clip(image, 0, np.iinfo(np.int16).max).astype(np.int16), labels, affine


def draw_affine(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a slightly oblique and shifted grid of ``size`` cubed voxels around the brain."""
    angles = rng.normal(0, 4, 3).clip(-8, 8)
    rotation = scipy.spatial.transform.Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = rotation * (FIELD_OF_VIEW / size)
    centre = np.array(BRAIN_CENTRE) + rng.uniform(-3, 3, 3)
    affine[:3, 3] = centre - affine[:3, :3] @ np.full(3, (size - 1) / 2)
    return affine


def deform(template: Template, affine: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Sample the template's maps on a subject's grid, under a random head size and smooth displacement.

    Returns:
        ``(4, size, size, size)``.
    """
    grid = np.stack(np.meshgrid(*[np.arange(size, dtype=np.float64)] * 3, indexing="ij"))
    world = np.einsum("ij,jxyz->ixyz", affine[:3, :3], grid) + affine[:3, 3].reshape(3, 1, 1, 1)
    head_size = rng.uniform(0.86, 1.0, (3, 1, 1, 1)) * rng.uniform(0.97, 1.0)
    centre = np.reshape(BRAIN_CENTRE, (3, 1, 1, 1))
    # 3.5 mm between control points 38 mm apart: clearly another brain, without folds.
    displacement = np.stack([smooth_field(rng.normal(0, 3.5, (6, 6, 6)), size) for _ in range(3)])
    world = (world - centre) / head_size + centre + displacement
    inverse = np.linalg.inv(template.affine)
    voxels = np.einsum("ij,jxyz->ixyz", inverse[:3, :3], world) + inverse[:3, 3].reshape(3, 1, 1, 1)
    return np.stack([scipy.ndimage.map_coordinates(one_map, voxels, order=1) for one_map in template.maps])


def draw_lesion(white: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one uneven ellipsoid, 8 to 16 mm in radius, centred in white matter.

    Args:
        white: Probability of white matter, ``(size, size, size)``.
        rng: Generator that is drawn from in a fixed order.

    Returns:
        Share of lesion per voxel in [0, 1], of the same shape.
    """
    size = white.shape[0]
    centre = rng.choice(np.argwhere(white > 0.85 * white.max()))
    radii = rng.uniform(8, 16, 3) * size / FIELD_OF_VIEW
    offsets = (np.indices(white.shape) - centre.reshape(3, 1, 1, 1)) / radii.reshape(3, 1, 1, 1)
    unevenness = smooth_field(rng.normal(0, 0.15, (9, 9, 9)), size)
    distance = np.sqrt(np.sum(offsets**2, axis=0)) + unevenness
    return 1 / (1 + np.exp(np.clip((distance - 1) * 10, -30, 30)))


def draw_channel(
    maps: np.ndarray, lesion: np.ndarray, signals: tuple[float, ...], rng: np.random.Generator
) -> np.ndarray:
    """Draw one channel: tissue signals, bias field, Rician noise, scanner gain.

    Args:
        maps: Maps ``(4, *spatial)`` as `deform` gives them.
        lesion: Share of lesion, ``(*spatial)``.
        signals: Mean signal of grey matter, white matter, fluid and lesion.
        rng: Generator that is drawn from in a fixed order.

    Returns:
        ``(*spatial)``, arbitrary units around 1000.
    """
    *levels, lesion_level = np.array(signals) + rng.uniform(-0.05, 0.05, 4)
    healthy = np.einsum("t...,t->...", maps[:3], levels) + rng.uniform(0.3, 0.7) * maps[3]
    signal = np.clip(healthy * (1 - lesion) + lesion_level * lesion, 0, None) ** rng.uniform(0.85, 1.2)
    size = lesion.shape[0]
    signal *= np.exp(smooth_field(rng.normal(0, 0.15, (3, 3, 3)), size))
    sigma = rng.uniform(0.015, 0.04)
    # The magnitude of a complex signal with Gaussian noise in both parts is Rician.
    noisy = np.hypot(signal + rng.normal(0, sigma, signal.shape), rng.normal(0, sigma, signal.shape))
    return 1000 * rng.uniform(0.7, 1.3) * noisy


def smooth_field(control_points: np.ndarray, size: int) -> np.ndarray:
    """Interpolate ``(n, n, n)`` control points smoothly to ``(size, size, size)``."""
    return scipy.ndimage.zoom(control_points, size / control_points.shape[0], order=3, mode="nearest", grid_mode=True)
