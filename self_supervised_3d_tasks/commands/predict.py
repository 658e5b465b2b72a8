"""``python predict.py RUN_DIR INPUT OUTPUT``: NIfTI scans → NIfTI masks on the original grid."""

from __future__ import annotations

from pathlib import Path

from absl import flags, logging

from self_supervised_3d_tasks import commands
from self_supervised_3d_tasks.errors import UserError

USAGE = "usage: python predict.py RUN_DIR INPUT OUTPUT [--job NAME] [--overlap SHARE] [--overlay]"


def main() -> None:
    """Run the command."""
    flags.DEFINE_string("job", None, "Which finetuned model: a folder name under RUN_DIR/jobs; default: see README.")
    flags.DEFINE_float("overlap", None, "Overlap of the sliding windows, 0 to below 1; default: the run's.", 0, 0.99)
    flags.DEFINE_bool("overlay", False, "Also write a picture of the mask on the scan beside each mask.")
    commands.run(execute)


def execute(argv: list[str]) -> None:
    """Predict a scan or a folder of scans with the parsed flags.

    Args:
        argv: Program name, run folder of a finetuning, input file or folder, output file or folder.

    Raises:
        UserError: The run is not finished, or an input cannot be read.
    """
    if len(argv) != 4:
        raise UserError(USAGE)
    from self_supervised_3d_tasks.prediction import Predictor

    run, source, target = (Path(item).expanduser() for item in argv[1:])
    predictor = Predictor.load(run, job=flags.FLAGS.job, overlap=flags.FLAGS.overlap)
    logging.info("model: %s", predictor.name)
    for written in predictor.predict_path(source, target, overlay=flags.FLAGS.overlay):
        print(written)
