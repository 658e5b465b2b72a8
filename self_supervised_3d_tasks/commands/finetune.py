"""Few labels → scores: pretrained against from scratch, for each share of the labels, in a run folder."""

from __future__ import annotations

from collections.abc import Sequence

from self_supervised_3d_tasks.commands import experiment_run


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    experiment_run.run(execute, example="finetune/cpc_demo.json --set model_checkpoint=runs/cpc_demo", argv=argv)


def execute(argv: list[str]) -> None:
    """Run the experiment file that ``argv`` names, see `experiment_run.execute`."""
    experiment_run.execute("finetune", argv)


if __name__ == "__main__":
    main()
