"""A real SLURM of one node for a test: its daemons see a loopback interface of their own, and end with the test."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

ADDRESS = "10.9.8.7"  # of the loopback interface; with 127.0.0.1 alone, names are not resolved
STARTED_WITHIN = 60  # seconds
PROGRAMS = ("slurmctld", "slurmd", "munged", "squeue", "unshare", "nsenter", "setpriv", "ip")
CONFIGURATION = """
ClusterName=trial
SlurmctldHost=node({address})
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=2
MailProg=/bin/true
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=node NodeAddr={address} CPUs=8 RealMemory=1000000 Gres=gpu:8 State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# The first process of the namespaces: when it ends, the kernel ends all others in them.
DAEMONS = """
set -e
hostname node
ip link set lo up
ip address add {address}/32 dev lo
mount --bind {folder}/hosts /etc/hosts
munged --force --foreground --socket={folder}/munge.socket --key-file={folder}/munge.key \
    --log-file={folder}/munged.log --pid-file={folder}/munged.pid --seed-file={folder}/munge.seed &
slurmctld -D &
slurmd -D &
sleep 3000
"""


class Slurm:
    """Runs commands where the daemons are.

    Args:
        leader: The first process of the daemons' namespaces.
        environment: Variables of every command.
    """

    def __init__(self, leader: int, environment: dict[str, str]) -> None:
        self._enter = ["nsenter", "--target", str(leader), "--mount", "--uts", "--net", "--pid"]
        self._environment = environment

    def start(
        self, command: Sequence[object], folder: Path, environment: Mapping[str, str] = os.environ
    ) -> subprocess.Popen:
        """Start a command in a folder; its output is collected."""
        pipe, environment = subprocess.PIPE, {**environment, **self._environment}
        # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
        command = [*self._enter, f"--wd={folder}", "env", "--default-signal=INT", *map(str, command)]
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)

    def run(self, *command: object, timeout: float = 60) -> str:
        """Run one of SLURM's own commands and return what it prints."""
        process = self.start(command, Path("/"))
        out, err = process.communicate(timeout=timeout)
        assert process.returncode == 0, (command, err)
        return out.strip()

    def tasks(self, state: str = "all") -> list[str]:
        """Return the numbers of the tasks that are waiting or running, or of those in one state."""
        return self.run("squeue", "--noheader", "--array", "--format=%i", f"--states={state}").split()

    @staticmethod
    def interrupt(process: subprocess.Popen) -> None:
        """Press Ctrl-C in a command."""
        (command,) = psutil.Process(process.pid).children()
        command.send_signal(signal.SIGINT)


def lacking() -> str:
    """Return why no SLURM can be started here, or ""."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"needs {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge iproute2)"
    alone = ["unshare", "--net", "--pid", "--uts", "--fork", "--mount-proc", "true"]
    if os.geteuid() or subprocess.run(alone, capture_output=True).returncode:
        return "needs the right to make namespaces, which root has"
    return ""


@contextlib.contextmanager
def slurm() -> Iterator[Slurm]:
    """Start munged, slurmctld and slurmd, or skip the test where they are not installed or not allowed."""
    if reason := lacking():
        pytest.skip(reason)
    # Processors, memory and GPUs are only counted: the node need not have them.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # the path of a socket has at most 107 bytes
        folder = Path(name)
        places = {"folder": folder, "address": ADDRESS}
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**places))
        for number in range(8):
            os.mknod(folder / f"gpu{number}", stat.S_IFCHR | 0o600, os.makedev(1, 3))  # as /dev/null
        (folder / "gres.conf").write_text(f"NodeName=node Name=gpu File={folder}/gpu[0-7]\n")
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS} node\n")
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o400)
        for part in ("state", "spool"):
            (folder / part).mkdir()
        environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        # They end with this process, too, however that ends.
        alone = ["setpriv", "--pdeathsig=KILL", "unshare", "--net", "--pid", "--uts", "--fork", "--mount-proc"]
        alone.append("--kill-child")
        with (folder / "daemons.log").open("w") as log:
            command = [*alone, "bash", "-c", DAEMONS.format(**places)]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)
        try:
            yield _answering(process, environment, folder)
        finally:
            process.kill()
            process.wait()
            time.sleep(1)  # the kernel ends the others


def _answering(process: subprocess.Popen, environment: dict[str, str], folder: Path) -> Slurm:
    until = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < until:
        time.sleep(1)
        if children := psutil.Process(process.pid).children():
            found = Slurm(children[0].pid, environment)
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                if found.run("sinfo", "--noheader", "--format=%T", timeout=20) == "idle":
                    return found
    pytest.fail(f"SLURM does not start: {(folder / 'daemons.log').read_text()[-3000:]}")
