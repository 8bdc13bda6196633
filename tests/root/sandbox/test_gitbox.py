"""What git, or who has taken hold of it, may do in its box; here an interpreter stands in its place."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.engine.git import Repository

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("python3", path="/usr/bin") is None, reason="needs the host's python3"),
]

TRIES = """
import ctypes, json, os
call = ctypes.CDLL(None, use_errno=True).syscall
def denied(number, *words):
    return ctypes.get_errno() if call(number, *words) == -1 else 0
status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
x86 = os.uname().machine == "x86_64"
names = {"unshare": 272 if x86 else 97, "bpf": 321 if x86 else 280, "keyctl": 250 if x86 else 219,
         "mount": 165 if x86 else 40, "io_uring_setup": 425, "userfaultfd": 323 if x86 else 282}
def write(path):
    try:
        with open(path, "w"): return 0
    except OSError as error:
        return error.errno
print(json.dumps({
    "denied": {name: denied(number, -1, -1, -1, -1, -1) for name, number in names.items()},
    "capabilities": status["CapEff"], "bounding": status["CapBnd"], "uid": status["Uid"].split()[0],
    "filtered": status["Seccomp"], "new": status["NoNewPrivs"],
    "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "inside": write("evil"), "outside": write("/var/evil"), "pids": os.getpid(),
}))
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Reachable for nobody, as the engine's own is by its working directory."""
    path = Path(tempfile.mkdtemp(prefix="sampan-git-"))
    yield path
    shutil.rmtree(path)


def attack(directory: Path, *, by_ssh: bool) -> dict[str, Any]:
    async def run() -> str:
        repository = Repository(str(directory))
        repository._program = "/usr/bin/python3"
        repository._by_ssh = by_ssh
        repository._prepare()
        process = await repository._started((), {"X": "y"})
        out, said = await process.communicate(TRIES.encode())
        assert out, said.decode()
        return out.decode()

    found: dict[str, Any] = json.loads(asyncio.run(run()))
    return found


@pytest.mark.parametrize("by_ssh", [False, True], ids=["nobody", "for-ssh"])
def test_the_box_leaves_nothing_to_be_gained(
    directory: Path, monkeypatch: pytest.MonkeyPatch, *, by_ssh: bool
) -> None:
    monkeypatch.setattr("sampan.engine.git._SETTINGS", ())  # words of git's own
    found = attack(directory, by_ssh=by_ssh)
    assert found["denied"] == dict.fromkeys(found["denied"], 1)
    assert (found["filtered"], found["new"]) == ("2", "1")
    assert int(found["capabilities"], 16) == (2 if by_ssh else 0)
    assert found["uid"] == ("0" if by_ssh else "65534")
    assert found["fds"] == [0, 1, 2]
    assert found["inside"] == 0
    assert found["outside"] == 30  # EROFS
