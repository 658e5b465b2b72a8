"""Scans in, masks on the original grid out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from self_supervised_3d_tasks import inference
from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.formats import npy
from self_supervised_3d_tasks.data.volumes import Header, Volume, check_same_grid
from self_supervised_3d_tasks.downstream.base import CaseScore
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import geometry
from self_supervised_3d_tasks.files.scratch import scratch
from self_supervised_3d_tasks.prediction import probabilities as probability_files
from self_supervised_3d_tasks.prediction.base import Plan, Predictor
from self_supervised_3d_tasks.prediction.components import keep_largest
from self_supervised_3d_tasks.prediction.failures import Failures


@dataclass(frozen=True)
class MaskPredictor(Predictor):
    """A file into a file or folder, a folder into a folder.

    Each mask has the format of its scan, and that of a photograph is a PNG file.

    Attributes:
        largest: Classes of which a mask keeps the largest connected component.
    """

    largest: Sequence[int] = ()

    def predict_path(
        self, source: Path, target: Path, *, overlay: bool = False, probabilities: bool = False, resume: bool = False
    ) -> Iterator[Path]:
        """Write one mask per scan, with ``overlay`` also a picture of it on the scan.

        The picture is ``<name>.png``, or ``<name>_overlay.png`` where the mask has that name; ``probabilities`` are
        ``<name>_probabilities`` and written before the mask. With ``resume`` a mask of before stays as it is, unless
        its probabilities are missing, and is drawn where its picture is.
        """
        plan = self.plan(source, target, overlay=overlay, probabilities=probabilities, resume=resume)
        self._say_what_masks_hold([case for case, _ in plan.jobs])
        self._tell_of_voxels([case for case, _ in plan.jobs])
        for case, path in plan.jobs:
            done = False
            with plan.failures.of(case):
                self._write(case, path, overlay, probabilities)
                done = True
            if done:
                yield path
        plan.failures.tell()

    def plan(
        self, source: Path, target: Path, *, overlay: bool = False, probabilities: bool = False, resume: bool = False
    ) -> Plan:
        """Return each scan of which something is missing with the path of its mask."""
        jobs = self.outputs(source, target)
        for case, path in jobs:
            if path.exists() and any(path.samefile(image) for image in case.images):
                raise UserError(f"{path}: is the scan itself; choose another OUTPUT for its mask")
        masks = {path for _, path in jobs}
        if overlay:
            _check_free("--overlay", "picture", masks, map(_picture, masks))
        existing = [path for path in sorted(masks) if path.exists()]
        if existing and not resume:
            raise UserError(f"{existing[0]}: exists already; choose another OUTPUT, or go on behind it with --resume")
        plan = self.checked(
            [(case, path) for case, path in jobs if not _is_whole(path, overlay, probabilities)], source
        )
        if probabilities:
            files = [probability_files.path_of(path, self._header(case)) for case, path in plan.jobs]
            _check_free("--probabilities", "file of probabilities", masks, files)
            if not resume and (existing := [path for path in files if path.exists()]):
                raise UserError(f"{existing[0]}: exists already; choose another OUTPUT, or write it anew with --resume")
        return plan

    def place(self, source: Path, target: Path) -> Path:
        """Return the output if it is a folder, else the folder of the one mask."""
        is_folder = self.is_many(source) or target.is_dir() or not formats.suffix_of(target)
        return target if is_folder else target.parent

    def outputs(self, source: Path, target: Path) -> list[tuple[Case, Path]]:
        """Return each scan with the path of its mask."""
        cases = self.cases(source, target)
        given = formats.suffix_of(target)
        if self.place(source, target) == target:
            return [(case, target / f"{case.name}{formats.of(case.image).MASK_SUFFIXES[0]}") for case in cases]
        (case,) = cases
        allowed = formats.of(case.image).MASK_SUFFIXES
        if given not in allowed:
            raise UserError(f"{target}: the mask of {case.image.name} is a {' or '.join(allowed)} file; change OUTPUT")
        return [(case, target)]

    def scores(self, cases: Sequence[Case], source: Path, target: Path, failures: Failures) -> list[CaseScore]:
        """Compare each mask with that of the case, both on the grid of the scan."""
        masks = {case.name: path for case, path in self.outputs(source, target)}
        rank, fitting = self.experiment.rank, []
        for case in cases:
            if masks[case.name].exists():
                with failures.of(case):
                    check_same_grid(formats.read_mask_header(masks[case.name], rank), self._mask_header(case))
                    fitting.append(case)
        occurring, rows = self.task.occurring(fitting), []
        for case in fitting:
            truth = formats.read_mask(case.mask, rank)
            labels = self.experiment.preprocessing.labels(truth, self.experiment.num_classes)
            mask = formats.read_mask(masks[case.name], rank)
            rows += self.task.case_scores(case, labels, mask.array, occurring, mask.spacing)
        return rows

    def _write(self, case: Case, path: Path, overlay: bool, probabilities: bool) -> None:
        """Write what is missing of a scan."""
        if _is_whole(path, False, probabilities):
            mask = formats.read_mask(path, self.experiment.rank).array
        else:
            mask = self._predict(case, path, probabilities)
        if overlay:
            self.task.draw(_picture(path), self._read(case), mask, case.name)

    def _predict(self, case: Case, path: Path, probabilities: bool) -> np.ndarray:
        """Write a mask and, where asked for, the probabilities; return the mask."""
        volume = self._read(case)
        header = volume.header
        scans = [inference.PreparedScan.of(volume, group.experiment.preprocessing) for group in self.groups]
        del volume  # a large one takes as much memory as what the model sees of it
        shape, num_classes = header.shape[:-1], self.experiment.num_classes
        pieces = self._pieces(scans)
        if probabilities:
            with scratch((*shape, num_classes)) as kept:
                mask = inference.labels_of(_copied(pieces, kept), shape)
                probability_files.write_probabilities(probability_files.path_of(path, header), kept, header)
        else:
            mask = inference.labels_of(pieces, shape)
        if self.largest:
            mask = keep_largest(mask, self.largest)
        formats.write_mask(path, mask, reference=header.path)
        return mask

    def _pieces(self, scans: Sequence[inference.PreparedScan]) -> Iterator[inference.Piece]:
        """Yield the mean probabilities of all models, given a scan as each group of them sees it."""
        num_classes = self.experiment.num_classes
        predictions = [
            (group.weight, scan.predict(group.predict, num_classes=num_classes, overlap=group.experiment.overlap))
            for group, scan in zip(self.groups, scans, strict=True)
        ]
        if len(predictions) == 1:
            pieces = predictions[0][1]
        else:
            pieces = inference.mean_pieces(predictions, scans[0].shape, num_classes)
        for place, values in pieces:
            self.check_numbers(values)
            yield place, values

    def _read(self, case: Case) -> Volume:
        return formats.read_channels(case.images, self.experiment.rank)

    def _header(self, case: Case) -> Header:
        return formats.read_header(case.image, self.experiment.rank)

    def _mask_header(self, case: Case) -> Header:
        return formats.read_mask_header(case.mask, self.experiment.rank)

    def _say_what_masks_hold(self, cases: Sequence[Case]) -> None:
        of_arrays = self.experiment.layout.suffixes == npy.SUFFIXES
        if of_arrays and any(self._header(case).affine is not None for case in cases):
            logging.warning(
                "trained on .npy arrays, whose axes have no directions. A scan is turned to RAS axes before it is "
                "predicted: check that the arrays were stored in that order."
            )
        if self.experiment.label_map:
            logging.info(
                "masks hold classes, not the labels they were made from: label_map %s", self.experiment.label_map
            )

    def _tell_of_voxels(self, cases: Sequence[Case]) -> None:
        """Warn of scans whose voxels are far from those of the training and are not resampled to them."""
        runs = {member.run for member in self.members if member.experiment.target_spacing is None}
        for run in runs:
            said = list(filter(None, (geometry.unlike_trained(run, self._header(case)) for case in cases)))
            if said:
                logging.warning(
                    "%d of %d scans have voxels of another size, such as %s", len(said), len(cases), said[0]
                )


def _check_free(flag: str, noun: str, masks: set[Path], others: Iterator[Path] | Sequence[Path]) -> None:
    if taken := sorted(masks.intersection(others)):
        raise UserError(f"{flag}: {taken[0]} is a mask, so that no {noun} can have that name; rename its scan")


def _copied(pieces: Iterator[inference.Piece], array: np.ndarray) -> Iterator[inference.Piece]:
    """Yield pieces and write each to its place in an array."""
    for place, values in pieces:
        array[place] = values
        yield place, values


def _is_whole(mask: Path, overlay: bool, probabilities: bool) -> bool:
    """Return whether everything exists that is asked for; a killed run may have written only some of it."""
    files = [mask.exists()]
    if overlay:
        files.append(_picture(mask).exists())
    if probabilities:
        files.append(probability_files.find(mask) is not None)
    return all(files)


def _picture(mask: Path) -> Path:
    """Return where a mask is drawn on its scan."""
    ending = "_overlay.png" if formats.suffix_of(mask) == ".png" else ".png"
    return mask.with_name(f"{formats.stem_of(mask)}{ending}")
