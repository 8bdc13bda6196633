"""No secret leaves in ``system report``: canaries wherever one may be put, and the most talkative log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.e2e import serving

pytestmark = [pytest.mark.root, pytest.mark.e2e]

LONELY = ("--network", "none", "busybox")
FAILING = (
    "FROM busybox\nARG TOKEN\nENV E=canary10\nLABEL l=canary11\nRUN --network=none echo canary12; false\n"
)
SECRET = "FROM busybox\nRUN --network=none --mount=type=secret,id=s cat /run/secrets/s; canary15\n"


def test_no_canary_is_in_a_report(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary14")
    commands: tuple[tuple[tuple[str, ...], str], ...] = (
        (
            (
                *("run", "-d", "--name", "cage", "-e", "PW=canary1", "-l", "token=canary2"),
                *("--log-opt", "tag=canary3", "--annotation", "a=canary4", "--health-cmd", "canary5"),
                *(*LONELY, "sh", "-c", "sleep 1000; : canary6"),
            ),
            "",
        ),
        (("exec", "-e", "PW=canary7", "cage", "canary8"), ""),
        (("run", "--rm", *LONELY, "canary9"), ""),
        (("build", "-q", "--build-arg", "TOKEN=canary13", "-"), FAILING),
        (("build", "-q", "--secret", f"id=s,src={tmp_path}/secret", "-"), SECRET),
        (("login", "-u", "me", "--password-stdin", "127.0.0.1:1"), "canary16"),
        (("volume", "create", "--label", "l=canary17", "labelled"), ""),
        (
            (
                "volume",
                "create",
                "-o",
                "type=cifs",
                "-o",
                "device=//h/s",
                "-o",
                "o=password=canary18",
                "options",
            ),
            "",
        ),
        (("run", "--rm", "-v", "options:/v", *LONELY, "true"), ""),
        (("network", "create", "--label", "l=canary19", "-o", "com.x=canary20", "n"), ""),
        (("commit", "-m", "canary21", "-a", "canary22", "--change", "CMD canary23", "cage", "im"), ""),
        (("build", "-q", "https://me:canary24@127.0.0.1:1/x.git"), ""),
        (("import", "http://me:canary25@127.0.0.1:1/a.tar?token=canary26"), ""),
    )
    with serving.daemon("-D") as daemon:
        # Where the engine's log is when the client has started it.
        os.symlink(f"{daemon.root}/log", f"{daemon.root}/run/daemon.log")
        environment = {**os.environ, "SAMPAN_HOST": daemon.host, "DOCKER_CONFIG": str(tmp_path / "config")}

        def sampan(words: tuple[str, ...], text: str = "") -> int:
            whole = [sys.executable, "-m", "sampan", *words]
            return subprocess.run(
                whole, input=text.encode(), capture_output=True, env=environment, check=False
            ).returncode

        for words, text in commands:
            sampan(words, text)
        assert sampan(("system", "report", "-o", str(tmp_path / "report.tgz"))) == 0
        for words in (("rm", "-f", "cage"), ("rmi", "im"), ("network", "rm", "n")):
            assert sampan(words) == 0, words
        for name in ("labelled", "options"):
            assert sampan(("volume", "rm", name)) == 0
    with tarfile.open(tmp_path / "report.tgz") as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    found = {name: re.findall(rb".{0,60}canary[0-9]+", content) for name, content in files.items()}
    assert not {name: words for name, words in found.items() if words}
    assert any(name.endswith("/daemon.log") and b"msg=serving" in content for name, content in files.items())
