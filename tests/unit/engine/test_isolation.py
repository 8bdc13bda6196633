"""The kernel's word on this process, in the place of a container's first."""

from __future__ import annotations

import os
from pathlib import Path

from sampan.engine import isolation
from sampan.engine.model import Container, ContainerConfig, ContainerState, HostConfig, Status
from sampan.spec.runtime import ALL_CAPABILITIES


def running(pid: int) -> Container:
    return Container(
        id="ab" * 32,
        name="quiet_crane",
        created=1,
        path="sleep",
        args=(),
        image_id="sha256:" + "cd" * 32,
        config=ContainerConfig(image="busybox"),
        host=HostConfig(),
        state=ContainerState(status=Status.RUNNING, pid=pid),
    )


def test_what_is_told_is_what_the_kernel_says() -> None:
    found = isolation.observed(running(os.getpid()))
    assert found is not None
    lines = Path("/proc/self/status").read_text().splitlines()
    said = dict(line.split(":", 1) for line in lines)
    most = int(said["CapBnd"], 16)
    assert found.capabilities == tuple(name for bit, name in enumerate(ALL_CAPABILITIES) if most >> bit & 1)
    assert found.no_new_privileges is (said["NoNewPrivs"].strip() == "1")
    assert found.seccomp == ("default" if said["Seccomp"].strip() == "2" else "unconfined")
    assert set(found.namespaces.values()) == {"host"}
    assert isolation.observed(running(os.getpid())) is found


def test_nothing_is_told_of_what_does_not_run() -> None:
    assert isolation.observed(running(0)) is None
    assert isolation.observed(running(1 << 30)) is None
