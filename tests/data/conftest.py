"""Folders of tiny scans, made anew for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.data.cases import Labels, find_cases
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store.volumes import VolumeStore


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., VolumeStore]:
    """Write arrays as .npy scans, with masks where given, and return the store of them."""

    def make(images, masks=None, *, data_dim=None, num_classes=3, **options) -> VolumeStore:
        for folder, arrays in (("scans", images), ("scans_labels", masks or [])):
            (tmp_path / folder).mkdir(exist_ok=True)
            for index, array in enumerate(arrays):
                np.save(tmp_path / folder / f"case{index:02}.npy", array)
        cases = find_cases("npy", tmp_path / "scans", Labels() if masks is not None else None)
        spatial = np.shape(images[0])[:-1]
        preprocessing = Preprocessing(
            data_dim or spatial, np.shape(images[0])[-1], intensity_window=(0, 1), volume_fitting="crop"
        )
        return VolumeStore(cases, preprocessing, num_classes=num_classes if masks is not None else None, **options)

    return make
