"""``python train.py FILE.json``: unlabelled scans → a pretrained encoder."""

from __future__ import annotations

from self_supervised_3d_tasks.commands import experiment_run


def main() -> None:
    """Run the command."""
    experiment_run.main("train")
