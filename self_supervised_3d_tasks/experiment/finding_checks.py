"""Keys of an experiment on findings that contradict each other: one message each, which names them and a way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from self_supervised_3d_tasks.errors import UserError

if TYPE_CHECKING:
    from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment


def check(experiment: FinetuneExperiment) -> None:
    """Raise `UserError` for keys that mean something for classes only, and for names that cannot be findings."""
    name = f"dataset_name {experiment.dataset_name!r}"
    if experiment.multilabel:
        raise UserError(
            f"multilabel: means ordered classes, of which a scan has one; {name} already gives every finding a "
            "yes-or-no output of its own; remove the key"
        )
    if experiment.sample_classes_uniform:
        raise UserError(f"sample_classes_uniform: a scan of {name} can have several findings; remove the key")
    if experiment.label_map:
        raise UserError(
            f"label_map: turns labels into classes, but {name} has findings, which have names; set class_names"
        )
    _check_names(experiment.class_names or [], name)
    if experiment.num_classes != len(experiment.class_names):
        raise UserError(
            f"num_classes, class_names: {name} has one output per finding, of which class_names has "
            f"{len(experiment.class_names)}, received num_classes {experiment.num_classes}; remove num_classes"
        )
    if experiment.loss != "binary_crossentropy":
        raise UserError(
            f"loss: findings are independent yes-or-no outputs; use binary_crossentropy, received {experiment.loss!r}"
        )


def _check_names(findings: list[str], name: str) -> None:
    if len(findings) < 2:
        raise UserError(
            f"class_names: {name} needs the names of two findings or more, received {findings}; for one of them use "
            '"images" with a table of classes 0 and 1'
        )
    if len({"".join(filter(str.isalnum, finding)).lower() for finding in findings}) < len(findings):
        raise UserError(f"class_names: expected different names, received {', '.join(findings)}")
    for finding in findings:
        if not any(map(str.isalnum, finding)) or finding != finding.strip() or "|" in finding:
            raise UserError(
                f'class_names: {finding!r} cannot stand in a table of findings, where "|" and spaces around a name '
                "separate; rename it"
            )
        if finding == "No Finding":
            raise UserError('class_names: "No Finding" is what a scan without any of the others has; remove it')
