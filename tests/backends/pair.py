"""Two processes that train together: ``python pair.py PORT FOLDER KILL SCRIPT …``.

Their output goes to FOLDER/0.txt and FOLDER/1.txt, the exit codes to stdout. With KILL 1 the second one is killed when
the first one has finished an epoch. To be run where only these two reach the network.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

LIMIT = 1200  # seconds


def main(port, folder, kill, *command):
    options = ["--coordinator", f"127.0.0.1:{port}", "--num_processes", "2", "--process_id"]
    environment = os.environ | {"TMPDIR": folder}
    started = []
    for index in range(2):
        with open(Path(folder) / f"{index}.txt", "w") as log:
            whole = [sys.executable, *command, *options, str(index)]
            started.append(subprocess.Popen(whole, stdout=log, stderr=subprocess.STDOUT, env=environment))
    first, second = started
    until = time.monotonic() + LIMIT
    try:
        while kill == "1" and first.poll() is None and time.monotonic() < until:
            if list(Path().glob("runs/*/state.json")):
                second.kill()
                break
            time.sleep(0.1)
        killed = time.monotonic()
        codes = [process.wait(max(1, until - time.monotonic())) for process in started]
        print(json.dumps({"codes": codes, "seconds": time.monotonic() - killed}))
    finally:
        for process in started:
            process.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
