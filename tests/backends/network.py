"""A network of its own for processes that listen to every one they have."""

import shutil
import subprocess

import pytest


def alone():
    """Return the start of a command whose processes reach only each other."""
    for command in (["unshare", "-n"], ["unshare", "-rn"]):
        up = [*command, "sh", "-c", "ip link set lo up"]
        if shutil.which("unshare") and subprocess.run(up, capture_output=True, timeout=20).returncode == 0:
            return [*command, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    pytest.skip("no network namespace can be made here: unshare -n and unshare -rn fail")
