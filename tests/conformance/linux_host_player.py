"""Stands in for `env` before a program of the plug-in: counts it, and plays the first fault that strikes it.

Run as `linux_host_player.py DIRECTORY VARIABLE=... PROGRAM ...`; a program is whatever follows the variables.
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ENV = "/usr/bin/env"


def main() -> None:
    directory, arguments = Path(sys.argv[1]), sys.argv[2:]
    first = next(number for number, word in enumerate(arguments) if "=" not in word)
    program = arguments[first:]
    if program[:3] == ["sudo", "-n", "--"]:
        program = program[3:]
    fault = _struck(directory / "faults", " ".join(program))
    if fault is None:
        os.execv(ENV, [ENV, *arguments])
    if fault["action"] == "replace":
        os.execv(ENV, [ENV, *arguments[:first], *[program[index] for index in fault["order"]]])
    _play(fault, [ENV, *arguments])


def _struck(faults: Path, program: str) -> dict[str, Any] | None:
    """Return the first fault for a program, and count it."""
    with faults.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        listed = json.load(file)
        for fault in listed:
            if fault["times"] != 0 and re.search(fault["program"], program, re.DOTALL):
                if fault["times"] is not None:
                    fault["times"] -= 1
                file.seek(0)
                file.truncate()
                json.dump(listed, file)
                return dict(fault)
    return None


def _play(fault: dict[str, Any], real: list[str]) -> None:
    if fault["action"] == "hang":
        time.sleep(3600)
    out = b""
    if fault["runs"]:
        out = subprocess.run(real, capture_output=True, check=False).stdout
    if fault["action"] == "cut":
        out = out[: len(out) // 2]
    if fault.get("says") is not None:
        out = str(fault["says"]).encode()
    sys.stdout.buffer.write(out)
    sys.stdout.buffer.flush()
    sys.stderr.write(str(fault.get("complains", "")))
    sys.stderr.flush()
    if fault.get("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(int(str(fault.get("code", 0))))


main()
