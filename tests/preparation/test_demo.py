import hashlib
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.preparation import _synthetic_brain as brain
from self_supervised_3d_tasks.preparation import demo

pytest.importorskip("nilearn", reason="the demo cohort is made from data inside nilearn")

ROOT = Path(__file__).parents[2]
OPTIONS = demo.Options(num_unlabelled=2, num_labelled=2, num_test=1, size=16, channels=2, num_slices=2, seed=3)


@pytest.fixture(scope="module")
def template():
    return brain.load_template(spacing=6.0)


@pytest.fixture
def cohort(tmp_path, template, monkeypatch):
    monkeypatch.setattr(brain, "load_template", lambda spacing: template)
    demo.prepare(tmp_path / "cohort", OPTIONS)
    return tmp_path / "cohort"


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def prepare_command(*arguments):
    command = [sys.executable, "prepare.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_folders_and_names(cohort):
    assert list(contents(cohort)) == [
        "README.txt",
        "cohort.json",
        "images/images_000.nii.gz",
        "images/images_001.nii.gz",
        "labelled/labelled_000.nii.gz",
        "labelled/labelled_001.nii.gz",
        "labelled_labels/labelled_000.nii.gz",
        "labelled_labels/labelled_001.nii.gz",
        "slices/images/images_000_004.png",
        "slices/images/images_000_012.png",
        "slices/images/images_001_004.png",
        "slices/images/images_001_012.png",
        "slices/labelled/labelled_000_004.png",
        "slices/labelled/labelled_000_012.png",
        "slices/labelled/labelled_001_004.png",
        "slices/labelled/labelled_001_012.png",
        "slices/labelled_labels/labelled_000_004.png",
        "slices/labelled_labels/labelled_000_012.png",
        "slices/labelled_labels/labelled_001_004.png",
        "slices/labelled_labels/labelled_001_012.png",
        "slices/test/test_000_004.png",
        "slices/test/test_000_012.png",
        "slices/test_labels/test_000_004.png",
        "slices/test_labels/test_000_012.png",
        "test/test_000.nii.gz",
        "test_labels/test_000.nii.gz",
    ]
    assert [path.name for path in cohort.parent.iterdir()] == ["cohort"]
    text = (cohort / "README.txt").read_text()
    assert "16 x 16 x 16, voxels of 12 mm" in text
    assert "Seed: 3" in text
    assert "Copyright (C) 1993-2009 Louis Collins" in text


def test_slices_are_planes_of_the_volumes_with_x_to_the_right_and_y_up(cohort):
    from PIL import Image

    volume = nib.load(cohort / "labelled/labelled_000.nii.gz").get_fdata()[..., 0]
    labels = np.asarray(nib.load(cohort / "labelled_labels/labelled_000.nii.gz").dataobj)
    picture = np.asarray(Image.open(cohort / "slices/labelled/labelled_000_012.png"))
    mask = np.asarray(Image.open(cohort / "slices/labelled_labels/labelled_000_012.png"))
    assert picture.shape == mask.shape == (16, 16)
    for x, y in ((3, 2), (8, 8), (12, 5)):
        assert mask[15 - y, x] == labels[x, y, 12]
        assert abs(picture[15 - y, x] - 255 * volume[x, y, 12] / volume.max()) <= 0.51


def test_without_slices_there_is_no_folder_for_them(tmp_path, template, monkeypatch):
    monkeypatch.setattr(brain, "load_template", lambda spacing: template)
    demo.prepare(tmp_path / "cohort", OPTIONS.model_copy(update={"num_slices": 0}))
    assert not (tmp_path / "cohort" / "slices").exists()


def test_no_two_scans_are_the_same(cohort):
    scans = [value for name, value in contents(cohort).items() if name.endswith(".nii.gz") and "_labels" not in name]
    assert len(set(scans)) == 5


def test_files_are_nifti_on_an_oblique_grid_with_exact_voxels(cohort):
    image = nib.load(cohort / "labelled/labelled_000.nii.gz")
    mask = nib.load(cohort / "labelled_labels/labelled_000.nii.gz")
    assert image.shape == (16, 16, 16, 2)
    assert image.get_data_dtype() == np.int16
    assert mask.shape == (16, 16, 16)
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(image.affine, mask.affine)
    np.testing.assert_allclose(image.header.get_zooms()[:3], 12)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
    rotation = image.affine[:3, :3] / 12
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.abs(rotation - np.eye(3)).max() > 1e-3
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


def test_one_channel_files_have_no_channel_axis(tmp_path, template, monkeypatch):
    monkeypatch.setattr(brain, "load_template", lambda spacing: template)
    demo.prepare(tmp_path / "cohort", OPTIONS.model_copy(update={"channels": 1}))
    assert nib.load(tmp_path / "cohort/images/images_000.nii.gz").shape == (16, 16, 16)


def test_same_options_give_the_same_bytes_and_another_seed_does_not(cohort, tmp_path):
    demo.prepare(tmp_path / "again", OPTIONS)
    demo.prepare(tmp_path / "other", OPTIONS.model_copy(update={"seed": 4}))
    assert contents(cohort) == contents(tmp_path / "again")
    name = "test/test_000.nii.gz"
    assert contents(cohort)[name] != contents(tmp_path / "other")[name]


def test_a_larger_pool_for_pretraining_leaves_the_other_scans_as_they_are(cohort, tmp_path):
    demo.prepare(tmp_path / "larger", OPTIONS.model_copy(update={"num_unlabelled": 3}))
    larger = contents(tmp_path / "larger")
    scans = {name: value for name, value in contents(cohort).items() if name.endswith(".nii.gz")}
    assert scans.items() <= larger.items()


def test_the_same_complete_cohort_is_left_alone(cohort):
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*")}
    demo.prepare(cohort, OPTIONS)
    assert before == {path: path.stat().st_mtime_ns for path in cohort.rglob("*")}


@pytest.mark.parametrize("damage", ["missing file", "other options", "foreign file", "a file itself"])
def test_anything_else_is_never_overwritten(damage, cohort, tmp_path):
    output, options = cohort, OPTIONS
    if damage == "missing file":
        (cohort / "test/test_000.nii.gz").unlink()
    elif damage == "other options":
        options = OPTIONS.model_copy(update={"seed": 4})
    elif damage == "foreign file":
        output = tmp_path / "mine"
        output.mkdir()
        (output / "notes.txt").write_text("mine")
    else:
        output = cohort / "README.txt"
    before = contents(tmp_path)
    with pytest.raises(UserError, match="choose another --output"):
        demo.prepare(output, options)
    assert contents(tmp_path) == before


def test_an_empty_folder_is_filled(tmp_path, template, monkeypatch):
    monkeypatch.setattr(brain, "load_template", lambda spacing: template)
    (tmp_path / "cohort").mkdir()
    demo.prepare(tmp_path / "cohort", OPTIONS)
    assert (tmp_path / "cohort" / demo.MANIFEST).exists()


def test_an_interrupted_run_leaves_nothing(tmp_path, template, monkeypatch):
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return make_subject(*arguments)

    make_subject = brain.make_subject
    monkeypatch.setattr(brain, "load_template", lambda spacing: template)
    monkeypatch.setattr(brain, "make_subject", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.prepare(tmp_path / "cohort", OPTIONS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_is_a_users_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(NotADirectoryError, match="Not a directory: '.*/file'"):
        demo.prepare(tmp_path / "cohort", OPTIONS)


def test_a_file_in_the_way_is_a_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made here"):
        demo.prepare(tmp_path / "file" / "cohort", OPTIONS)


def test_without_nilearn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(UserError, match=r"pip install 'self_supervised_3d_tasks\[demo\]'"):
        brain.load_template(4.0)


def test_template_holds_probabilities_and_a_remainder_of_mean_zero(template):
    tissues, detail = template.maps[:3], template.maps[3]
    assert tissues.min() >= 0
    assert tissues.sum(axis=0).max() < 1.05
    assert abs(detail).mean() < 0.1 * tissues.sum(axis=0).mean()
    # Adult brains: about a litre and a half of tissue and fluid, more grey than white matter.
    grey, white, fluid = tissues.sum(axis=(1, 2, 3)) / 1e6
    assert 1.5 < grey + white + fluid < 2.2
    assert grey > white > fluid


@pytest.mark.parametrize("seed", range(6))
def test_subjects_look_like_brains(template, seed):
    image, mask, _ = brain.make_subject(template, 32, 2, np.random.default_rng(seed))
    assert image.shape == (32, 32, 32, 2)
    background, grey, white, lesion = np.bincount(mask.ravel(), minlength=4) * 6.0**3 / 1e6  # litres
    assert background > 4.5
    assert 0.5 < grey < 1.3
    assert 0.25 < white < 0.8
    assert 0.001 < lesion < 0.03
    # The border of the grid is air: no brain is cut off.
    for axis in range(3):
        border = np.take(mask, [0, -1], axis)
        assert np.count_nonzero(border) < 0.01 * border.size
    # The lesion is one piece, up to single voxels.
    pieces, _ = ndimage.label(mask == 3)
    assert np.bincount(pieces.ravel())[1:].max() > 0.9 * np.count_nonzero(mask == 3)


@pytest.mark.parametrize("seed", range(6))
def test_tissues_differ_in_signal_as_in_the_sequences_imitated(template, seed):
    image, mask, _ = brain.make_subject(template, 32, 2, np.random.default_rng(seed))
    t1, flair = ([np.median(image[..., channel][mask == label]) for label in range(4)] for channel in range(2))
    assert t1[0] < t1[3] < t1[1] < t1[2]
    assert flair[0] < flair[2] < flair[1] < flair[3]


def test_lesions_lie_in_white_matter_and_differ_in_place_and_size(template):
    rng = np.random.default_rng(0)
    white = ndimage.zoom(template.maps[1], 0.25, order=1)[:48, :48, :47]
    white = np.pad(white, [(0, 48 - size) for size in white.shape])
    lesions = [brain.draw_lesion(white, rng) > 0.5 for _ in range(10)]
    centres = np.array([ndimage.center_of_mass(lesion) for lesion in lesions])
    inside = [white[tuple(centre.round().astype(int))] for centre in centres]
    assert np.mean(inside) > 0.6
    assert centres.std(axis=0).min() > 3
    volumes = [np.count_nonzero(lesion) for lesion in lesions]
    assert max(volumes) > 1.5 * min(volumes)


@pytest.mark.parametrize("seed", range(4))
def test_the_displacement_does_not_fold_space(seed):
    """The determinant of the Jacobian of x + u(x) stays positive, on 4 mm voxels."""
    rng = np.random.default_rng(seed)
    field = np.stack([brain.smooth_field(rng.normal(0, 3.5, (6, 6, 6)), 48) for _ in range(3)])
    gradient = np.stack([np.stack(np.gradient(component, 4.0)) for component in field])
    jacobian = np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3)
    assert np.linalg.det(jacobian).min() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: python prepare.py NAME --output PATH"),
        (["dmo", "--output", "x"], "no data set 'dmo' can be prepared; known: demo, index. Did you mean 'demo'?"),
        (["_synthetic_brain"], "known: demo, index."),
        (["demo"], "--output is missing"),
        (["demo", "--output", "x", "--size", "8"], "--size: Input should be greater than or equal to 16, received 8"),
        (["demo", "--output", "x", "--sise", "8"], "Did you mean: size"),
        (["demo", "more", "--output", "x"], "unexpected argument 'more'"),
    ],
)
def test_command_line_mistakes_are_one_message_and_exit_code_2(arguments, message):
    result = prepare_command(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_help_names_every_flag_with_its_default():
    result = prepare_command("demo", "--help")
    assert result.returncode == 0
    assert result.stderr == ""
    for name, field in demo.Options.model_fields.items():
        assert f"--{name} " in result.stdout
        assert f"{field.description} (default: {field.default})" in result.stdout


def test_command_makes_the_cohort_and_says_where(tmp_path):
    counts = ["--num_unlabelled", 1, "--num_labelled", 1, "--num_test", 1]
    result = prepare_command("demo", "--output", tmp_path / "demo", "--size", 16, *counts)
    assert result.returncode == 0, result.stderr
    assert f"ready: {tmp_path / 'demo'}" in result.stderr
    assert len(list((tmp_path / "demo").rglob("*.nii.gz"))) == 5
