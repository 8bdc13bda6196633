"""Attacks by builds: mounts of steps that lead elsewhere, and rights that nobody granted."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.attacks.conftest import Docker

pytestmark = [pytest.mark.root, pytest.mark.e2e]


def build(engine: Docker, *lines: str) -> tuple[int, str]:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        text = "\n".join(("FROM busybox", *lines, "")).encode()
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    done = engine("build", "--no-cache", "-t", "evil", "-", stdin=made.getvalue())
    engine("builder", "prune", "-af")
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["type=cache,id=evil", "type=bind,rw"])
def test_cve_2024_23651_a_part_of_a_mount_that_is_a_link(engine: Docker, public: Path, kind: str) -> None:
    """A step makes a link at the place that another step mounts a part of its files from."""
    (public / "secret").write_text("the host's")
    code, said = build(
        engine,
        f"RUN ln -s {public} /part",
        "FROM busybox",
        f"RUN --mount={kind},from=0,source=/part,target=/d cat /d/secret; touch /d/left; true",
    )
    assert "the host's" not in said, code
    assert [path.name for path in public.iterdir()] == ["secret"]


@pytest.mark.parametrize("kind", ["type=cache", "type=tmpfs", "type=bind,from=busybox,source=/etc/passwd"])
def test_cve_2024_23652_what_is_cleaned_away_after_a_step(engine: Docker, public: Path, kind: str) -> None:
    """A step puts a link in the place of the directory that its mount's stand-in was made in."""
    victim = public / "stub"
    victim.touch() if "passwd" in kind else victim.mkdir()
    build(engine, f"RUN --mount={kind},target=/m/stub mv /m /n; ln -s {public} /m")
    assert victim.exists()


def test_cve_2024_23653_rights_that_nobody_granted(engine: Docker) -> None:
    code, said = build(engine, "RUN --security=insecure grep CapEff /proc/self/status", "RUN echo more")
    assert "CapEff:" not in said, said  # the step was not run at all
    assert code != 0, said


def test_cve_2024_21626_a_working_directory_by_descriptor(engine: Docker, public: Path) -> None:
    """WORKDIR is a descriptor of the engine's that leads to the host, for a step and for the image."""
    (public / "secret").write_text("the host's")
    for number in range(3, 9):
        look = f"RUN cat ../../../../../../../../..{public}/secret; cat .{public}/secret; true"
        _, said = build(engine, f"WORKDIR /proc/self/fd/{number}", look)
        assert "the host's" not in said.replace(look, "")
        _, said = build(engine, f"ENV D=/proc/self/fd/{number}", "WORKDIR $D/../../..", look)
        assert "the host's" not in said.replace(look, "")
    assert [path.name for path in public.iterdir()] == ["secret"]
