"""What a pretraining with a decoder has learned.

RUN_DIR is the folder of a finished pretraining. Parts of validation scans, or of the scans of --data_dir, go through
its encoder and its decoder: are the codes of one whole alike and those of different wholes not, and is the restoration
better than the mean image? Pictures and numbers are written to RUN_DIR/analysis.
"""

from collections.abc import Sequence

from absl import flags

from self_supervised_3d_tasks import commands, terminal
from self_supervised_3d_tasks.files.paths import as_path
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.files.scratch import own_temporary_folder
from self_supervised_3d_tasks.pretraining.analysis import Sample, analyse

USAGE = "RUN_DIR [--data_dir FOLDER] [--num_wholes N] [--parts_per_whole N] [--seed N]"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    flags.DEFINE_string("data_dir", None, "Folder of other scans; default: the validation scans of the run.")
    flags.DEFINE_integer("num_wholes", 30, "Images (crops, where it was trained on crops) to analyse.", lower_bound=2)
    flags.DEFINE_integer("parts_per_whole", 20, "Examples of each.", lower_bound=2)
    flags.DEFINE_integer("seed", 0, "Of the choice of scans, crops and parts, and of t-SNE.", lower_bound=0)
    commands.run(execute, usage=USAGE, example="runs/parts2whole_demo", argv=argv)


@own_temporary_folder()
def execute(run: str) -> None:
    """Analyse the run with the parsed flags.

    Args:
        run: The folder of a pretraining.

    Raises:
        UserError: It is not the folder of a finished pretraining of a task with a decoder, or scans cannot be read.
    """
    folder, options = RunFolder.open(as_path(run)), flags.FLAGS
    terminal.say(analyse(folder, Sample(options.data_dir, options.num_wholes, options.parts_per_whole, options.seed)))
    terminal.say(f"written: {folder.analysis}")


if __name__ == "__main__":
    main()
