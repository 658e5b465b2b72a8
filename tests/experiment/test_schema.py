"""The schemas that editors read, as they are committed."""

import json

import pytest

from self_supervised_3d_tasks.experiment import schema
from tests.experiment.experiment_files import REPOSITORY


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_the_committed_schema_is_current(command):
    path = REPOSITORY / "configs_json" / "schema" / f"{command}.json"
    assert json.loads(path.read_text()) == schema.json_schema(command), "run `make schema`"
