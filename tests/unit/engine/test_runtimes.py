"""Which program a runtime's name means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.engine import runtimes
from sampan.engine.options import EngineOptions
from sampan.errors import Internal, InvalidArgument
from sampan.sandbox.messages import ExternalRuntime, Launch, RootFilesystem
from sampan.spec.runtime import default_spec


@pytest.fixture
def runc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A host that has runc and nothing else."""
    program = tmp_path / "runc"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return str(program)


def launch(*, init: bool = False) -> Launch:
    spec = default_spec()
    spec["process"]["args"] = ["true"]
    root = RootFilesystem(base="", lowers=(), upper="", work="")
    return Launch(id="a", bundle="", state="", spec=spec, root=root, init=init, seccomp_filter="/filter")


def test_names(runc: str) -> None:
    options = EngineOptions(runtimes={"mine": (runc, "--debug"), "gone": ("/nowhere",)})
    assert runtimes.find("", options) is None
    assert runtimes.find("sampan", options) is None
    assert runtimes.find("runc", options) == ExternalRuntime(path=runc)
    assert runtimes.find("io.containerd.runc.v2", options) == ExternalRuntime(path=runc)
    assert runtimes.find("mine", options) == ExternalRuntime(path=runc, arguments=("--debug",))
    for name in ("crun", "gone", "nosuch"):
        with pytest.raises(InvalidArgument, match=f"^unknown or invalid runtime name: {name}$"):
            runtimes.find(name, options)
    assert list(runtimes.listed(options)) == ["sampan", "runc", "io.containerd.runc.v2", "mine", "gone"]


def test_a_launch_brings_its_rules_along_instead_of_our_program(runc: str) -> None:
    found = runtimes.adapted(launch(), ExternalRuntime(path=runc), {"defaultAction": "SCMP_ACT_LOG"})
    assert found.spec["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_LOG"}
    assert (found.seccomp_filter, found.runtime) == (None, ExternalRuntime(path=runc))


def test_an_init_is_the_hosts(runc: str) -> None:
    by = ExternalRuntime(path=runc)
    with pytest.raises(Internal, match=r'exec: "docker-init": executable file not found in \$PATH'):
        runtimes.adapted(launch(init=True), by, None)
    program = os.path.join(os.path.dirname(runc), "docker-init")
    os.link(runc, program)
    found = runtimes.adapted(launch(init=True), by, None)
    assert found.spec["process"]["args"] == ["/sbin/docker-init", "--", "true"]
    assert found.spec["mounts"][-1]["source"] == program
    assert not found.init
