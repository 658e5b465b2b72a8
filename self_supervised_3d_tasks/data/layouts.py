"""What ``dataset_name`` means: which files of a folder are scans, where labels are, what other keys default to."""

from dataclasses import dataclass, replace
from typing import Literal

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.formats import nifti, npy, photographs
from self_supervised_3d_tasks.data.labels.findings import NIH_COLUMNS, NIH_FINDINGS
from self_supervised_3d_tasks.data.preparing.scaling import Scaling
from self_supervised_3d_tasks.errors import UserError, nearest


@dataclass(frozen=True)
class Layout:
    """A kind of folder.

    Args:
        rank: Number of spatial axes; None where ``data_dim`` says it.
        suffixes: Endings of the files of scans and masks.
        volume_fitting: Default of the experiment's ``volume_fitting``.
        label_stem: What a mask's stem has more than its scan's.
        num_classes: Default of the experiment's ``num_classes``.
        intensity_window: Default of the experiment's ``intensity_window``.
        intensity_scaling: Default of the experiment's ``intensity_scaling`` where there is no window; the predecessor's
            layouts have the predecessor's.
        labels: ``"masks"``, one file per scan; ``"table"``, a CSV file with the name of a scan and its class in the
            first two columns; ``"any"``, masks or a table with named columns; ``"findings"``, a table with named
            columns and any number of findings per scan; ``"archive"``, classes in the file of the scans; ``"index"``,
            masks or classes in the file that names the scans; ``"none"``.
        columns: Defaults of the experiment's ``image_column``, ``label_column`` and ``subject_column``.
        findings: Default of the experiment's ``class_names``.
        grey: See `preprocessing.Preprocessing`.
        rows_first: Whether 2D scans are ``(rows, columns)``, so that the second axis goes from left to right. In
            others, slices of volumes, and in 3D it is the first.
    """

    rank: int | None
    suffixes: tuple[str, ...]
    volume_fitting: str
    label_stem: str
    num_classes: int = 3
    intensity_window: tuple[float, float] | None = None
    intensity_scaling: Scaling = "percentiles"
    labels: Literal["masks", "table", "any", "findings", "archive", "index", "none"] = "masks"
    columns: tuple[str | None, str | None, str | None] = (None, None, None)
    findings: tuple[str, ...] = ()
    grey: bool = False
    rows_first: bool = False


_IMAGES = Layout(
    2, photographs.SUFFIXES, "resize", "", intensity_window=photographs.WINDOW, labels="any", rows_first=True
)

LAYOUTS = {
    "pancreas3d": Layout(3, npy.SUFFIXES, "exact", "_label", intensity_scaling="min_max"),
    "brats": Layout(3, npy.SUFFIXES, "crop", "_label", num_classes=4, intensity_scaling="min_max"),
    "ukb3d": Layout(3, npy.SUFFIXES, "crop", "_label", intensity_scaling="min_max"),
    "pancreas2d": Layout(2, npy.SUFFIXES, "exact", "", intensity_scaling="min_max"),
    "kaggle_retina": replace(_IMAGES, volume_fitting="exact", labels="table", num_classes=5),
    "ukb2d": replace(_IMAGES, volume_fitting="exact", labels="none"),
    "images": _IMAGES,
    "chestxray": replace(
        _IMAGES, labels="findings", num_classes=len(NIH_FINDINGS), columns=NIH_COLUMNS, findings=NIH_FINDINGS, grey=True
    ),
    "volumes": Layout(None, formats.volume_suffixes(), "resize", "", labels="any"),
    "nifti": Layout(3, nifti.SUFFIXES, "resize", "", labels="any"),
    "npy": Layout(None, npy.SUFFIXES, "exact", "", labels="any"),
    "index": Layout(None, formats.suffixes(), "resize", "", labels="index", rows_first=True),
    "medmnist": Layout(None, (), "exact", "", labels="archive", rows_first=True),
}


def get(dataset_name: str) -> Layout:
    """Return the layout of that name.

    Raises:
        UserError: No layout is called so.
    """
    if dataset_name not in LAYOUTS:
        raise UserError(
            f"dataset_name: expected one of {', '.join(LAYOUTS)}, received {dataset_name!r}."
            + nearest(dataset_name, LAYOUTS)
        )
    return LAYOUTS[dataset_name]
