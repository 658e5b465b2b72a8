"""An index as the input of a model that was trained from one."""

import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.prediction import load_predictor


@pytest.fixture
def predictor(tmp_path, write_run):
    keys = {"dataset_name": "index", "channel_columns": ["t1", "t2"], "number_channels": 2}
    return load_predictor(write_run(tmp_path / "run", **keys))


def test_rows_give_masks_on_the_grids_of_their_scans(tmp_path, predictor):
    rng, rows = np.random.default_rng(0), ["t2,id,t1"]
    for number, shape in enumerate([(6, 7, 8), (5, 9, 4)]):
        for kind in ("t1", "t2"):
            scan = nib.Nifti1Image(rng.normal(size=shape).astype(np.float32), np.diag([2, 1, 3, 1]))
            nib.save(scan, tmp_path / f"{number}_{kind}.nii.gz")
        rows.append(f"{number}_t2.nii.gz,patient{number},{number}_t1.nii.gz")
    (tmp_path / "index.csv").write_text("\n".join(rows))
    written = list(predictor.predict_path(tmp_path / "index.csv", tmp_path / "out"))
    assert written == [tmp_path / "out" / f"patient{number}.nii.gz" for number in range(2)]
    for path, shape in zip(written, [(6, 7, 8), (5, 9, 4)], strict=True):
        assert nib.load(path).shape == shape
        np.testing.assert_array_equal(nib.load(path).affine, np.diag([2, 1, 3, 1]))


def test_a_folder_does_not_say_which_file_is_which_channel(tmp_path, predictor):
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), tmp_path / "a_t1.nii.gz")
    with pytest.raises(UserError, match=r"takes the channels t1, t2 as an index names them.*prepare\.py index"):
        list(predictor.predict_path(tmp_path, tmp_path / "out"))
