"""The contract of a pretext task."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from self_supervised_3d_tasks.algorithms import base
from self_supervised_3d_tasks.ops.sampling import Sampling

# What tells of a task what its input shape says, and is not to be overridden.
OWN = {"name", "spatial_shape", "rank"}


def test_at_most_ten_members_are_to_be_overridden_and_each_is_explained():
    members = {name: value for name, value in vars(base.Algorithm).items() if not name.startswith("_")} | {
        "__init__": base.Algorithm
    }
    overridable = {name: value for name, value in members.items() if name not in OWN}
    assert len(overridable) <= 10
    for name, value in overridable.items():
        assert inspect.getdoc(value), name


def test_sampling_is_frozen_and_by_default_that_of_a_task_which_looks_at_one_scan():
    sampling = Sampling()
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampling.companions = 1
    assert (sampling.companions, sampling.min_batch, sampling.distinct_scans) == (0, 1, False)
    assert base.Algorithm.sampling == sampling
