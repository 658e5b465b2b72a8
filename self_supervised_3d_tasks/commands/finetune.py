"""``python finetune.py FILE.json``: few labels → scores, pretrained against from scratch."""

from __future__ import annotations

from self_supervised_3d_tasks.commands import experiment_run


def main() -> None:
    """Run the command."""
    experiment_run.main("finetune")
