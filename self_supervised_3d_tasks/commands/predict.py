"""New scans → masks on the original grid, or a table of classes.

INPUT is a scan in any volume format, a folder of scans with its sub-folders, a DICOM series, an index (a CSV file with
a row per scan), or of an archive <archive>.npz/<part>; photographs for a model of photographs. A model of masks writes
each mask in the format of its scan and on its grid, for a DICOM series .nii.gz or, as a file that ends in .dcm, a DICOM
segmentation, for photographs PNG; OUTPUT is a file or a folder. A model of classes writes a CSV file, OUTPUT, with one
line per scan.

Of several models the probabilities are averaged: of jobs of RUN_DIR (--ensemble) and of further runs (--also), each
with its own preparation of scans. A scan of a folder that cannot be predicted does not stop the others; such scans are
listed at the end, the exit code is 1, and --resume tries them again.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags, logging

from self_supervised_3d_tasks import commands, terminal
from self_supervised_3d_tasks.errors import ScansFailed
from self_supervised_3d_tasks.files import lock
from self_supervised_3d_tasks.files.paths import as_path
from self_supervised_3d_tasks.files.scratch import own_temporary_folder
from self_supervised_3d_tasks.prediction import Predictor, Scoring, load_predictor

USAGE = (
    "RUN_DIR INPUT OUTPUT [--job NAME | --ensemble all|best|NAME,NAME] [--also RUN_DIR] [--mirror AXES] "
    "[--largest_component all|CLASSES] [--probabilities] [--overlay] [--scores LABELS] [--set key=value] [--resume] "
    "[--dry_run]"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    flags.DEFINE_string(
        "job",
        None,
        "Folder name under RUN_DIR/jobs; default: most labels, then best validation, and pretrained where it is close.",
    )
    flags.DEFINE_string(
        "ensemble", None, "Average jobs: all, best (all repetitions of the default job's mode), or NAME,NAME."
    )
    flags.DEFINE_multi_string("also", [], "Average with the models of this run folder too; repeatable.")
    flags.DEFINE_list(
        "mirror", [], "Average over all flips along these axes: x,y,z (x is left-right), of photographs rows,columns."
    )
    flags.DEFINE_string("largest_component", None, "all, or classes as 1,2: keep the largest component of each; masks.")
    flags.DEFINE_bool("probabilities", False, "Also write the probabilities of all classes beside each mask.")
    flags.DEFINE_bool("overlay", False, "Also write a picture of the mask on the scan beside each mask; masks only.")
    flags.DEFINE_string(
        "scores", None, "Folder of true masks, or table of labels: write scores.csv into OUTPUT and print the means."
    )
    flags.DEFINE_multi_string("set", [], "key=value: overrides a key of the run, such as overlap; repeatable.")
    flags.DEFINE_bool("resume", False, "Leave out scans of which all files, or the line of the table, exist already.")
    flags.DEFINE_bool("dry_run", False, "Check model and headers, print what would be written, and stop.")
    commands.run(execute, usage=USAGE, example="runs/cpc_demo_test demo_data/test masks --overlay", argv=argv)


@own_temporary_folder()
def execute(run: str, source: str, target: str) -> None:
    """Predict a scan or a folder of scans with the parsed flags.

    Args:
        run: The run folder of a finetuning.
        source: The input, a file, a folder or a part of an archive.
        target: The output, a file or a folder, and for classes a CSV file.

    Raises:
        UserError: The run is not finished, or the only input cannot be read.
    """
    given = flags.FLAGS
    runs, (source, target) = [run, *given.also], map(as_path, (source, target))
    predictor = load_predictor(
        *map(as_path, runs),
        job=given.job,
        ensemble=given.ensemble,
        mirror=given.mirror,
        largest_component=given.largest_component,
        overrides=given["set"].value,
    )
    logging.info("%s", predictor.describe())
    scoring = None
    if given.scores is not None:
        scoring = Scoring.of(predictor, source, target, as_path(given.scores), resume=given.resume)
    with contextlib.nullcontext() if given.dry_run else _held(predictor, source, target):
        failed = [_told(lines) for lines in (_predicted(predictor, source, target), _scored(scoring))]
    if any(failed):
        sys.exit(1)


@contextlib.contextmanager
def _held(predictor: Predictor, source: Path, target: Path) -> Iterator[None]:
    """Write alone: of two processes with one output, each would find masks of the other and leave half of its own."""
    place = predictor.place(source, target)
    remedy = "wait until it has ended, or choose another OUTPUT"
    # A single file shares its folder with others, which may be predicted at the same time.
    with lock.hold(place, remedy) if place == target else lock.beside(target, remedy):
        yield


def _told(lines: Iterator[str | Path]) -> bool:
    """Print lines as they come, and return whether some scans failed."""
    try:
        for line in lines:
            terminal.say(line)
    except ScansFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return True
    return False


def _predicted(predictor: Predictor, source: Path, target: Path) -> Iterator[str | Path]:
    """Predict, and yield what was written; or with ``--dry_run`` what would be."""
    given = flags.FLAGS
    options = {name: getattr(given, name) for name in ("overlay", "probabilities", "resume")}
    if given.dry_run:
        plan = predictor.plan(source, target, **options)
        yield from (f"{case.image} -> {written}" for case, written in plan.jobs)
        plan.failures.tell()
    else:
        yield from predictor.predict_path(source, target, **options)


def _scored(scoring: Scoring | None) -> Iterator[str]:
    """Score what was predicted, where that was asked for, and yield the means."""
    if scoring and not flags.FLAGS.dry_run:
        yield from scoring.write()
        scoring.failures.tell()


if __name__ == "__main__":
    main()
