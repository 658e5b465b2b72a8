from __future__ import annotations

import math

import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.tables import number, read_table, write_table

COLUMNS = ["case", "value"]


def test_round_trip_with_every_digit_and_no_leftovers(tmp_path):
    path = tmp_path / "new" / "table.csv"
    write_table(path, COLUMNS, [["a, b", 0.1 + 0.2], ["ä", None]])
    assert path.read_bytes() == 'case,value\n"a, b",0.30000000000000004\nä,\n'.encode()
    assert read_table(path, COLUMNS, "make it again") == [["a, b", "0.30000000000000004"], ["ä", ""]]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "received an empty file; make it again"),
        (b"case,other\n", "expected a table with the columns case,value, received case,other"),
        (b"case,value\na,1\nb\n", "line 3: expected 2 cells, received 1"),
        (b"\xff\xfe", "cannot be read: byte ff in line 1 is no UTF-8; save it as UTF-8; expected a CSV table"),
    ],
)
def test_another_table_is_named(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_table(path, COLUMNS, "make it again")
    assert "table.csv" in str(error.value)


def test_numbers_are_short_and_read_back(tmp_path):
    values = [None, math.nan, 3.0, 0.1, np.float32(0.1), 7]
    assert [number(value) for value in values] == ["", "", "3", "0.1", repr(float(np.float32(0.1))), "7"]
