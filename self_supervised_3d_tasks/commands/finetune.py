"""Few labels → scores: pretrained against from scratch, for each share of the labels, in a run folder."""

from collections.abc import Sequence

from self_supervised_3d_tasks.commands import experiment_run

EXAMPLE = "finetune/cpc_demo.json --set model_checkpoint=runs/cpc_demo"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    experiment_run.run("finetune", text=__doc__, example=EXAMPLE, argv=argv)


if __name__ == "__main__":
    main()
