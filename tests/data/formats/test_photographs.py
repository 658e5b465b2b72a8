from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.errors import UserError

DRAWS = np.random.default_rng(5)
GREY = DRAWS.integers(0, 256, (5, 7), np.uint8)
COLOUR = DRAWS.integers(0, 256, (5, 7, 3), np.uint8)
DEEP = DRAWS.integers(0, 65536, (5, 7), np.uint16)


def save(path: Path, image: Image.Image | np.ndarray, **options) -> Path:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


def with_alpha(pixels: np.ndarray, alpha: int = 255) -> np.ndarray:
    pixels = pixels.reshape(5, 7, -1)
    return np.concatenate([pixels, np.full((5, 7, 1), alpha, np.uint8)], axis=-1)


def palette(pixels: np.ndarray) -> Image.Image:
    """Return an image of indices 0, 1, 2 for black, red and (9, 8, 7)."""
    image = Image.frombytes("P", pixels.shape[::-1], pixels.tobytes())
    image.putpalette([0, 0, 0, 255, 0, 0, 9, 8, 7])
    return image


INDICES = DRAWS.integers(0, 3, (5, 7), np.uint8)
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [9, 8, 7]])[INDICES]
IMAGES = {
    "grey": (GREY, GREY),
    "colour": (COLOUR, COLOUR),
    "16 bits": (DEEP, DEEP),
    "opaque": (with_alpha(COLOUR), COLOUR),
    "grey opaque": (Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (7, 5), 255)]), GREY),
    "palette": (palette(INDICES), COLOURS),
    "black and white": (GREY > 127, 255 * (GREY > 127)),
}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize(("image", "expected"), IMAGES.values(), ids=IMAGES)
def test_pixels_are_kept(tmp_path: Path, suffix: str, image, expected: np.ndarray) -> None:
    path = save(tmp_path / f"a{suffix}", image)
    volume = formats.read_image(path, 2)
    expected = expected.reshape(5, 7, -1)
    np.testing.assert_array_equal(volume.array, expected)
    assert volume.array.dtype == np.float32
    assert volume.affine is None and volume.spacing == (1, 1)
    assert formats.read_header(path, 2).shape == expected.shape


def test_real_numbers_of_tiff_are_kept(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", DEEP.astype(np.float32) / 7)
    np.testing.assert_array_equal(formats.read_image(path, 2).array[..., 0], DEEP.astype(np.float32) / 7)
    path = save(tmp_path / "b.tif", np.full((5, 7), np.nan, np.float32))
    with pytest.raises(UserError, match="b.tif: 35 of 35 voxels are NaN"):
        formats.read_image(path, 2)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_jpeg(tmp_path: Path, suffix: str) -> None:
    smooth = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8)
    path = save(tmp_path / f"a{suffix}", np.stack([smooth] * 3, axis=-1), quality=95)
    array = formats.read_image(path, 2).array
    assert array.shape == (32, 48, 3) == formats.read_header(path, 2).shape
    np.testing.assert_allclose(array, np.stack([smooth] * 3, axis=-1), atol=4)


# What the stored array looks like to a viewer, by the EXIF standard.
TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(
    ("suffix", "compression"), [(".png", None), (".tif", None), (".tif", "tiff_lzw"), (".jpg", None)]
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str, compression: str | None) -> None:
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:8, :16], pixels[8:, :16] = 200, 100
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"compression": compression} if compression else {}
    path = save(tmp_path / f"a{suffix}", pixels, exif=exif, **options)
    array = formats.read_image(path, 2).array
    np.testing.assert_allclose(array[..., 0], TURNED[orientation](pixels), atol=2 if suffix == ".jpg" else 0)
    assert formats.read_header(path, 2).shape == array.shape


def test_headers_decode_nothing(tmp_path: Path, monkeypatch) -> None:
    path = save(tmp_path / "a.png", COLOUR)
    monkeypatch.setattr(Image.Image, "load", None)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    assert formats.read_header(path, 2).shape == (5, 7, 3)


def several_pages() -> dict:
    return {"save_all": True, "append_images": [Image.fromarray(GREY)] * 2}


REFUSED = {
    "pages.tif": (GREY, several_pages(), "has 3 pages"),
    "pages.png": (GREY, several_pages(), "has 3 pages"),
    "print.jpg": (Image.new("CMYK", (7, 5)), {}, "colours of type CMYK, expected greyscale or RGB"),
    "lab.tif": (Image.new("LAB", (7, 5)), {}, "colours of type LAB"),
    "alpha.png": (with_alpha(COLOUR, 254), {}, "transparent pixels"),
    "grey_alpha.png": (Image.new("LA", (7, 5), (3, 0)), {}, "transparent pixels"),
    "key.png": (COLOUR, {"transparency": tuple(COLOUR[0, 0].tolist())}, "transparent pixels"),
    "palette.png": (palette(INDICES), {"transparency": 1}, "transparent pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_kinds_are_named(tmp_path: Path, name: str) -> None:
    image, options, message = REFUSED[name]
    save(tmp_path / name, image, **options)
    with pytest.raises(UserError, match=f"{name}: .*{message}"):
        formats.read_image(tmp_path / name, 2)


def test_decompression_bombs(tmp_path: Path, monkeypatch) -> None:
    path = save(tmp_path / "bomb.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 17)
    with pytest.raises(UserError, match="bomb.png: .*35 pixels.*Shrink"):
        formats.read_header(path, 2)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_damaged_files(tmp_path: Path, suffix: str) -> None:
    noise = DRAWS.integers(0, 256, (64, 64), np.uint8)
    content = save(tmp_path / f"whole{suffix}", noise).read_bytes()
    for name, damaged in (("cut", content[: len(content) // 2]), ("empty", b""), ("text", b"no image" * 50)):
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(damaged)
        for read in (formats.read_image, *([formats.read_mask] if suffix != ".jpg" else [])):
            with pytest.raises(UserError, match=rf"{name}{suffix}: cannot be read .*complete {suffix} file: copy"):
                read(path, 2)
    with pytest.raises(UserError, match="nowhere.png: this file does not exist"):
        formats.read_image(tmp_path / "nowhere.png", 2)


def test_other_formats_are_not_tried(tmp_path: Path) -> None:
    save(tmp_path / "a.png", GREY, format="BMP")
    with pytest.raises(UserError, match="a.png: cannot be read"):
        formats.read_header(tmp_path / "a.png", 2)


def test_photographs_have_two_axes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", COLOUR)
    for read in (formats.read_header, formats.read_image, formats.read_mask):
        mask = save(tmp_path / "mask.png", GREY)
        with pytest.raises(UserError, match=r"has shape \(5, 7, .\), expected 3 spatial axes"):
            read(mask if read is formats.read_mask else path, 3)


@pytest.mark.parametrize(
    ("image", "expected"),
    [(GREY, GREY), (DEEP, DEEP), (palette(INDICES), INDICES), (GREY > 127, GREY > 127)],
    ids=["grey", "16 bits", "palette", "black and white"],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_masks(tmp_path: Path, image, expected: np.ndarray, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", image)
    volume = formats.read_mask(path, 2)
    np.testing.assert_array_equal(volume.array, expected)
    assert volume.array.dtype == np.int32
    assert formats.read_mask_header(path, 2).shape == (5, 7, 1)


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("a.jpg", GREY, "JPEG changes the values"),
        ("a.png", COLOUR, r"has 3 channels \(RGB\), expected one integer label"),
        ("a.png", with_alpha(COLOUR), r"has 4 channels \(RGBA\)"),
    ],
)
def test_images_that_are_no_masks(tmp_path: Path, name: str, image, message: str) -> None:
    save(tmp_path / name, image)
    for read in (formats.read_mask_header, formats.read_mask):
        with pytest.raises(UserError, match=f"{name}: {message}"):
            read(tmp_path / name, 2)


def test_a_jpeg_under_another_name_is_no_mask(tmp_path: Path) -> None:
    save(tmp_path / "a.png", GREY, format="JPEG")
    with pytest.raises(UserError, match="a.png: JPEG changes"):
        formats.read_mask(tmp_path / "a.png", 2)


@pytest.mark.parametrize("suffix", [".png", ".npy", ".nii.gz"])
def test_masks_of_photographs_are_written(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    reference = save(tmp_path / "photo.jpg", COLOUR, exif=exif)
    path = tmp_path / "out" / f"mask{suffix}"
    labels = DRAWS.integers(0, 256, (7, 5))
    formats.write_mask(path, labels, reference)
    np.testing.assert_array_equal(formats.read_mask(path, 2).array, labels)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    if suffix == ".png":
        with Image.open(path) as image:
            assert image.mode == "L"


def test_masks_that_a_png_cannot_hold(tmp_path: Path) -> None:
    reference = save(tmp_path / "photo.png", GREY)
    with pytest.raises(UserError, match="mask.png: .*labels up to 256"):
        formats.write_mask(tmp_path / "mask.png", np.full((5, 7), 256), reference)
    with pytest.raises(UserError, match="mask.jpg: expected a mask file"):
        formats.write_mask(tmp_path / "mask.jpg", np.zeros((5, 7), int), reference)
    np.save(tmp_path / "scan.npy", np.zeros((2, 3, 4)))
    with pytest.raises(UserError, match="mask.png: a PNG file holds 2 axes.*3 axes"):
        formats.write_mask(tmp_path / "mask.png", np.zeros((2, 3, 4), int), tmp_path / "scan.npy")


def test_a_window_for_8_bits_does_not_cut_off_16(tmp_path: Path) -> None:
    path = save(tmp_path / "deep.png", np.full((5, 7), 1000, np.uint16))
    volume = formats.read_image(path, 2)
    with pytest.raises(UserError, match=r"deep.png: has values up to 1000.*intensity_window is \[0, 255\].*65535"):
        Preprocessing((5, 7), 1, intensity_window=(0, 255)).image(volume)
    np.testing.assert_allclose(Preprocessing((5, 7), 1, intensity_window=(0, 2000)).image(volume), 0.5)
    np.save(tmp_path / "ct.npy", np.full((5, 7), 1000))
    image = Preprocessing((5, 7), 1, intensity_window=(0, 255)).image(formats.read_image(tmp_path / "ct.npy", 2))
    np.testing.assert_array_equal(image, 1)  # a window of the user's own clips


def test_colours_and_greys_do_not_mix(tmp_path: Path) -> None:
    preprocessing = Preprocessing((5, 7), 3, intensity_window=(0, 255))
    grey = formats.read_header(save(tmp_path / "grey.png", GREY), 2)
    with pytest.raises(UserError, match=r"grey.png: has 1 channels.*number_channels = 3"):
        preprocessing.fitted_shape(grey)
    image = preprocessing.image(formats.read_image(save(tmp_path / "a.png", COLOUR), 2))
    np.testing.assert_allclose(image, COLOUR / 255, atol=1e-6)
