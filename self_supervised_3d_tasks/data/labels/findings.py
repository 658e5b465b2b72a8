"""The findings of an image, any number of them, as a cell of a table: ``Cardiomegaly|Emphysema`` or ``No Finding``.

The NIH ChestX-ray14 release writes them so (Wang et al. 2017, "ChestX-ray8: Hospital-scale Chest X-ray Database and
Benchmarks").
"""

from collections.abc import Sequence

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.files.paths import shown

NIH_FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
NIH_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")
"""Image, findings and subject."""
NO_FINDING = "No Finding"
SEPARATOR = "|"


def parse(text: str, findings: Sequence[str], where: str) -> tuple[int, ...]:
    """Return for each of ``findings`` 1 where the cell names it, else 0.

    Args:
        text: A cell. Spaces around a name and repeated names do not matter; an empty cell is ``No Finding``.
        findings: The known names.
        where: File and row, for messages.

    Raises:
        UserError: The cell names something else, or ``No Finding`` beside a finding.
    """
    named = {part for part in map(str.strip, text.split(SEPARATOR)) if part}
    if NO_FINDING in named and len(named) > 1:
        raise UserError(f'{where} has "{NO_FINDING}" beside a finding, {shown(text)!r}. Remove one of them.')
    for name in sorted(named - {NO_FINDING, *findings}):
        raise UserError(
            f"{where} has the finding {shown(name)!r}, expected those of class_names ({', '.join(findings)}), "
            f'separated by "{SEPARATOR}", or "{NO_FINDING}". Correct it, add it to class_names, or remove it from the '
            "table." + nearest(shown(name), findings)
        )
    return tuple(int(name in named) for name in findings)


def as_text(label: Sequence[int], findings: Sequence[str]) -> str:
    """Return what a cell says of a vector of `parse`."""
    named = [name for name, present in zip(findings, label, strict=True) if present]
    return SEPARATOR.join(named) or NO_FINDING
