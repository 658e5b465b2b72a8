"""New scans → masks on the original grid, or a table of classes.

INPUT is a scan, or a folder of scans, like those that the model was trained on; of an archive, <archive>.npz/<part>. A
model of masks writes NIfTI masks for NIfTI scans, which a model of .npy arrays takes too, .npy masks for .npy arrays,
and PNG masks for photographs, OUTPUT being a file or a folder; a model of classes writes a CSV file, OUTPUT, with one
line per scan.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging

from self_supervised_3d_tasks import commands
from self_supervised_3d_tasks.prediction import Predictor

USAGE = "RUN_DIR INPUT OUTPUT [--job NAME] [--set key=value] [--overlay] [--resume] [--dry_run]"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    flags.DEFINE_string("job", None, "Folder name under RUN_DIR/jobs; default: most labels, then best validation.")
    flags.DEFINE_multi_string("set", [], "key=value: overrides a key of the run, such as overlap; repeatable.")
    flags.DEFINE_bool("overlay", False, "Also write a picture of the mask on the scan beside each mask; masks only.")
    flags.DEFINE_bool("resume", False, "Leave out scans whose mask, or whose line of the table, exists already.")
    flags.DEFINE_bool("dry_run", False, "Check model and headers, print what would be written, and stop.")
    commands.run(execute, usage=USAGE, example="runs/cpc_demo_test demo_data/test masks --overlay", argv=argv)


def execute(run: str, source: str, target: str) -> None:
    """Predict a scan or a folder of scans with the parsed flags.

    Args:
        run: The run folder of a finetuning.
        source: The input, a file, a folder or a part of an archive.
        target: The output, a file or a folder, and for classes a CSV file.

    Raises:
        UserError: The run is not finished, or an input cannot be read.
    """
    run, source, target = (Path(item).expanduser() for item in (run, source, target))
    predictor = Predictor.load(run, job=flags.FLAGS.job, overrides=flags.FLAGS["set"].value)
    logging.info("model: %s", predictor.name)
    if flags.FLAGS.dry_run:
        for case, written in predictor.plan(source, target, resume=flags.FLAGS.resume):
            print(f"{case.image} -> {written}")
        return
    for written in predictor.predict_path(source, target, overlay=flags.FLAGS.overlay, resume=flags.FLAGS.resume):
        print(written)


if __name__ == "__main__":
    main()
