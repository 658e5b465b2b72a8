import tempfile

import numpy as np
import pytest

from self_supervised_3d_tasks.files.scratch import scratch


@pytest.mark.parametrize(("limit", "kind"), [(4 * 24, np.ndarray), (4 * 24 - 1, np.memmap)])
def test_an_array_of_zeros_in_memory_or_in_a_file_that_goes(tmp_path, monkeypatch, limit, kind):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch((2, 3, 4), limit) as array:
        assert type(array) is kind
        assert array.dtype == np.float32 and not array.any()
        array[1] = np.arange(12).reshape(3, 4)
        np.testing.assert_array_equal(array.sum(axis=(1, 2)), [0, 66])
    assert list(tmp_path.iterdir()) == []
