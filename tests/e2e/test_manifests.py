"""``manifest`` of both clients against one registry: what they say, what they keep, what they push."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import platforms
from tests.e2e.conftest import PROGRAMS

Run = Callable[..., str]

SCRIPT = """
inspect R/one:d-arm64
inspect --insecure R/one:d-arm64
inspect --insecure --verbose R/oci:o-arm
inspect --insecure R/one:d
inspect --insecure --verbose R/oci:o
inspect --insecure R/one:none
inspect --insecure BAD
inspect 127.0.0.1:1/x:x
inspect R/l R/one:d-arm
inspect --insecure R/oci:o@D
create --insecure R/list:1 R/one:d-arm64 R/one:d-arm R/oci:o
create --insecure R/list:1 R/one:d-amd64
create --insecure --amend R/list:1 R/one:d-amd64 R/oci:o-arm64
inspect R/list:1
inspect R/list:1 R/one:d-arm64
inspect R/list:1 R/one:none
annotate R/list:1 R/one:none --arch arm
annotate R/list:1 R/one:d-arm --arch bla --os x
annotate R/list:1 R/one:d-arm --arch arm --os linux --variant v6 --os-features a,b --os-features b
annotate R/list:1 BAD
inspect --verbose R/list:1
KEPT
push R/list:2
push --insecure R/list:1
push --purge R/list:1
push R/list:1
inspect --insecure R/list:1
create --insecure x/y R/one:d-amd64
push x/y
inspect x/y
rm x/y R/list:1 BAD
create --insecure R/one:m R/one@D2
push R/one:m
rm R/one:m
"""


@pytest.fixture(scope="module")
def filled(registry: str) -> tuple[str, dict[str, str]]:
    """The registry with images of several platforms in both forms, and what stands for what in SCRIPT."""
    files: dict[str, bytes] = {"a": b"a"}
    docker, oci = platforms.make(files, platforms.DOCKER), platforms.make(files)
    platforms.upload(registry, "one", "d", docker)
    platforms.upload(registry, "oci", "o", oci)
    return registry, {"D2": docker.digests["linux/amd64"], "D": oci.digests["linux/amd64"], "R": registry}


@pytest.fixture
def run(tmp_path: Path, filled: tuple[str, dict[str, str]]) -> Run:
    """Run a line of SCRIPT with a client and a folder of settings; what it said, and how it ended."""

    def call(program: str, line: str, folder: str = "") -> str:
        settings = tmp_path / (folder or program)
        settings.mkdir(exist_ok=True)
        if line == "KEPT":
            kept = sorted(path for path in settings.rglob("*") if path.is_file())
            return "\n".join(f"{path.relative_to(settings)} {path.read_text()}" for path in kept)
        words = [_filled(word, filled[1]) for word in line.split()]
        done = subprocess.run(
            [*PROGRAMS[program], "manifest", *words],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "DOCKER_CONFIG": str(settings)},
            check=False,
        )
        return f"{done.stdout}{done.stderr}{done.returncode}".replace("sampan", "docker")

    return call


def _filled(word: str, values: dict[str, str]) -> str:
    return re.sub(r"(?<![A-Z])(R|D2|D)(?![A-Z0-9])", lambda match: values[match[1]], word)


def test_both_clients_say_and_keep_the_same(run: Run, docker: str) -> None:
    for line in SCRIPT.split("\n"):
        if line:
            assert run("sampan", line) == run("docker", line), line


def test_a_list_that_one_client_began_the_other_goes_on_with(run: Run, docker: str) -> None:
    turns = ("docker", "sampan", "docker", "sampan")
    lines = (
        "create --insecure R/both:1 R/one:d-amd64",
        "create --insecure --amend R/both:1 R/one:d-arm",
        "annotate R/both:1 R/one:d-arm --variant v5",
        "push --purge R/both:1",
    )
    for program, line in zip(turns, lines, strict=True):
        assert run(program, line, "shared").endswith("\n0") or "annotate" in line
    shown = run("sampan", "inspect --insecure R/both:1", "shared")
    assert shown == run("docker", "inspect --insecure R/both:1", "shared")
    assert shown.count('"digest"') == 2
    assert '"variant": "v5"' in shown
