"""The package is replaced under a daemon, a zygote and running containers; the next daemon goes on with them.

The older engine is that of an earlier landing, out of this repository's history.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import sampan
from tests.e2e import images, serving
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

OLDER = "48d58d3ea553bc330f9bf76bb763183ca3a68b3f"
_REPOSITORY = Path(__file__).parents[2]
_SECONDS = 20
_COUNT = "i=0; while :; do echo $i; i=$((i+1)); usleep 5000; done"
_ENDS = 'trap "exit 7" TERM; while :; do usleep 5000; done'
_WAITS = "while ! test -e /go; do usleep 5000; done; exit 5"
_SERVES = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp"


@dataclass(slots=True)
class Site:
    """An engine whose package lies in a directory of its own, and can be replaced there."""

    root: str
    docker: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def daemon(self) -> Daemon:
        return Daemon(socket=f"{self.root}/run/sampan.sock", root=self.root)

    def install(self, package: str) -> None:
        """Have the package be a copy of the directory ``package``, as a package manager does it."""
        shutil.rmtree(f"{self.root}/site/sampan", ignore_errors=True)
        shutil.copytree(package, f"{self.root}/site/sampan")

    def start(self) -> None:
        self.processes.append(serving.start(self.daemon, ()))

    def stop(self) -> None:
        process = self.processes.pop()
        process.send_signal(signal.SIGTERM)
        assert process.wait(_SECONDS) == 0, self.log()

    def log(self) -> str:
        return Path(self.root, "log").read_text()

    def run(self, *arguments: str, code: int = 0) -> str:
        """What docker prints."""
        command = [self.docker, "-H", self.daemon.host, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout

    def inspect(self, name: str, what: str) -> str:
        return self.run("inspect", "--format", f"{{{{{what}}}}}", name).strip()

    def zygotes(self) -> set[int]:
        """Processes of the sandbox whose parent is none of them."""
        found: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"sampan-zygote {self.root}/".encode() in (path / "cmdline").read_bytes():
                    found[int(path.name)] = int((path / "stat").read_text().rpartition(") ")[2].split()[1])
        return {pid for pid, parent in found.items() if parent not in found}


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The older package."""
    command = ["git", "-C", str(_REPOSITORY), "archive", OLDER, "src/sampan"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the history is not here")
    place = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(place, filter="data")
    return f"{place}/src/sampan"


@pytest.fixture
def site(docker: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty one; nothing of its engines is left, and no error was logged."""
    root = tempfile.mkdtemp(prefix="sampan-e2e-")
    monkeypatch.setenv("PYTHONPATH", f"{root}/site")
    monkeypatch.chdir(root)
    found = Site(root, docker)
    try:
        yield found
        if found.processes:
            for name in found.run("ps", "-aq").split():
                found.run("rm", "-f", name)
            found.stop()
    finally:
        for process in found.processes:
            process.kill()
            process.wait()
        left, log = serving.traces(root), found.log()
        shutil.rmtree(root)
    assert left == []
    assert "level=error" not in log, log


def test_containers_live_on_under_a_replaced_package(site: Site, older: str) -> None:
    site.install(older)
    site.start()
    assert ask(site.daemon.socket, "POST", "/images/load?quiet=1", images.busybox())[0] == 200
    site.run("network", "create", "net")
    served = ("--name", "web", "--network", "net", "-p", "127.0.0.1::80")
    site.run("run", "-d", *served, "busybox", "sh", "-c", _SERVES)
    site.run("run", "-d", "--name", "counts", "busybox", "sh", "-c", _COUNT)
    site.run("run", "-d", "--name", "ends", "busybox", "sh", "-c", _ENDS)
    site.run("run", "-d", "--name", "waits", "busybox", "sh", "-c", _WAITS)
    site.run("run", "-dit", "--name", "typed", "busybox", "sh")
    checked = ("--health-cmd", "test -e /well", "--health-interval", "100ms", "--health-start-period", "60s")
    site.run("run", "-d", "--name", "checked", "-v", "vol:/data", *checked, "busybox", "sleep", "1000")
    site.run("create", "--name", "later", "busybox", "echo", "later")
    running = ("web", "counts", "ends", "waits", "typed", "checked")
    pids = {name: site.inspect(name, ".State.Pid") for name in running}
    old = site.zygotes()

    site.install(str(Path(sampan.__file__).parent))
    # The old daemon goes on with what it has in memory.
    assert site.run("exec", "counts", "echo", "same daemon") == "same daemon\n"
    assert site.run("run", "--rm", "busybox", "echo", "another") == "another\n"
    assert site.run("commit", "counts", "committed").startswith("sha256:")
    site.stop()
    site.start()

    assert {name: site.inspect(name, ".State.Pid") for name in running} == pids
    refused = _start_another(site, f"{site.root}/other", str(Path(older).parent))
    assert f"data root {site.root}/data is in use by the daemon with pid" in refused
    _everything_works(site)
    _nothing_is_missing(site.run("logs", "counts"))
    assert old < site.zygotes()
    for name in (*running, "later"):
        site.run("rm", "-f", name)
    _await(lambda: not old & site.zygotes(), "the old zygote ends with its last keeper")
    assert site.run("run", "--rm", "busybox", "echo", "new") == "new\n"


def _everything_works(site: Site) -> None:
    port = site.run("port", "web", "80").strip()
    page = subprocess.run(["busybox", "wget", "-qO-", f"http://{port}/"], capture_output=True, check=True)
    assert page.stdout == b"page\n"
    assert site.run("run", "--rm", "--network", "net", "busybox", "wget", "-qO-", "http://web/") == "page\n"
    site.run("network", "connect", "net", "counts")
    assert site.run("exec", "counts", "wget", "-qO-", "http://web/") == "page\n"
    assert site.run("exec", "-e", "A=b", "counts", "sh", "-c", "echo $A; exit 3", code=3) == "b\n"
    site.run("pause", "counts")
    assert site.inspect("counts", ".State.Status") == "paused"
    site.run("unpause", "counts")
    status, body = ask(site.daemon.socket, "GET", "/containers/counts/stats?stream=0&one-shot=1")
    assert (status, json.loads(body)["pids_stats"]["current"] > 0) == (200, True)
    Path(site.root, "given").write_text("given\n")
    site.run("cp", f"{site.root}/given", "counts:/given")
    assert site.run("exec", "counts", "cat", "/given") == "given\n"
    assert "A /given" in site.run("diff", "counts")
    assert "sh -c" in site.run("top", "counts")
    site.run("update", "--memory", "64m", "--memory-swap", "64m", "counts")
    site.run("exec", "checked", "touch", "/well", "/data/kept")
    _await(lambda: site.inspect("checked", ".State.Health.Status") == "healthy", "the check is made")
    site.run("stop", "ends")
    assert site.inspect("ends", ".State.ExitCode") == "7"
    site.run("exec", "waits", "touch", "/go")
    assert site.run("wait", "waits") == "5\n"
    assert b"said 2" in _typed(site, b"echo said $((1+1)); exit 4\n")
    assert site.run("wait", "typed") == "4\n"
    assert site.run("start", "-a", "later") == "later\n"
    site.run("restart", "-t", "1", "web")
    assert site.run("exec", "web", "ls", "/tmp") == "index.html\n"


def _start_another(site: Site, exec_root: str, package: str = "") -> str:
    """What a daemon says that does not start; one line."""
    environment = {**os.environ, "PYTHONPATH": package or os.environ["PYTHONPATH"]}
    command = [sys.executable, "-m", "sampan.daemon", "-H", f"unix://{site.root}/other.sock"]
    roots = ["--data-root", f"{site.root}/data", "--exec-root", exec_root]
    done = subprocess.run([*command, *roots], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    return done.stderr


def _typed(site: Site, line: bytes) -> bytes:
    """What a terminal shows that types a line into an attached container, until it ends."""
    ours, theirs = os.openpty()
    command = [site.docker, "-H", site.daemon.host, "attach", "typed"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, line)
    seen = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while block := os.read(ours, 4096):
            seen += block
    process.wait(_SECONDS)
    os.close(ours)
    return seen


def _nothing_is_missing(log: str) -> None:
    found = [int(line) for line in log.splitlines()]
    assert found == list(range(len(found)))
    assert len(found) > 100


def _await(true: object, what: str) -> None:
    assert callable(true)
    deadline = time.monotonic() + _SECONDS
    while not true():
        assert time.monotonic() < deadline, what


def test_a_newer_root_is_refused_in_one_line(site: Site) -> None:
    site.install(str(Path(sampan.__file__).parent))
    site.start()
    site.stop()  # in the same moment in which it serves
    with contextlib.closing(sqlite3.connect(f"{site.root}/data/state.db")) as database:
        database.execute("PRAGMA user_version=1000")
    refused = _start_another(site, f"{site.root}/run")
    assert "was written by a newer sampan (its version is 1000" in refused
