"""Unlabelled scans → a pretrained encoder, in a run folder."""

from collections.abc import Sequence

from self_supervised_3d_tasks.commands import experiment_run


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    experiment_run.run("train", text=__doc__, example="cpc_demo.json --set epochs=5", argv=argv)


if __name__ == "__main__":
    main()
