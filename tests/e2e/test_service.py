"""The engine as a service: sockets and word of it passed as systemd does, settings, cgroups, the units."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.network.naming import bridge_name
from tests.e2e import images, serving
from tests.e2e.talk import ask

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SECONDS = 30


class Manager:
    """What systemd is to a daemon: it listens on the socket, hands it over and hears of the daemon."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = str(root / "client.sock")
        self.settings = root / "daemon.json"
        self.settings.write_text("{}")
        self._words = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._words.settimeout(SECONDS)
        self._words.bind(str(root / "notify"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.socket)
        self._listener.listen()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the daemon says that it is ready."""
        code = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
            "os.environ['LISTEN_PID'] = str(os.getpid()); "
            "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
        )
        listener = self._listener.fileno()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", code, str(listener), "-m", "sampan.daemon", "-H", "fd://"),
                *("--config-file", str(self.settings)),
                *("--data-root", str(self.root / "data"), "--exec-root", str(self.root / "run")),
            ],
            env={**os.environ, "LISTEN_FDS": "1", "NOTIFY_SOCKET": str(self.root / "notify")},
            pass_fds=(listener,),
            stderr=(self.root / "log").open("ab"),
        )
        assert self.hears() == f"READY=1\nMAINPID={self.process.pid}"

    def hears(self) -> str:
        return self._words.recv(4096).decode()

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SECONDS) == 0, (self.root / "log").read_text()
        assert self.hears() == "STOPPING=1"
        self.process = None

    def reload(self) -> None:
        """Returns when the daemon has read its settings anew."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        assert self.hears().startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert self.hears().startswith("READY=1")

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._words.close()
        self._listener.close()

    @property
    def groups(self) -> list[str]:
        """The engine's directories in all cgroup trees."""
        name = bridge_name(str(self.root / "data"))
        return [
            str(path)
            for path in (*Path("/sys/fs/cgroup").glob(f"*/{name}"), Path(f"/sys/fs/cgroup/{name}"))
            if path.exists()
        ]


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    root = tmp_path_factory.mktemp("service")
    found = Manager(root)
    try:
        yield found
    finally:
        found.close()
        shutil.rmtree(root, ignore_errors=True)


def _get(manager: Manager, target: str) -> object:
    status, body = ask(manager.socket, "GET", target)
    assert status == 200, body
    return json.loads(body)


def test_a_passed_socket_is_served_and_stays(manager: Manager) -> None:
    manager.start()
    assert ask(manager.socket, "GET", "/_ping") == (200, b"OK")
    manager.stop()
    # A client that comes while no daemon runs is served by the next one.
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(manager.socket)
        early.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        manager.start()
        early.settimeout(SECONDS)
        assert early.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    manager.stop()
    assert manager.groups == []


def test_settings_are_reloaded_and_a_bad_file_changes_nothing(manager: Manager) -> None:
    manager.settings.write_text('{"labels": ["a=b"]}')
    manager.start()
    info = _get(manager, "/info")
    assert isinstance(info, dict)
    assert info["Labels"] == ["a=b"]
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as events:
        events.settimeout(SECONDS)
        events.connect(manager.socket)
        events.sendall(b'GET /events?filters={"type":{"daemon":true}} HTTP/1.1\r\nHost: x\r\n\r\n')
        assert b"200 OK" in events.recv(4096)
        manager.settings.write_text('{"labels": ["c=d"], "debug": true}')
        manager.reload()
        event = events.recv(65536)
        assert b'"Action":"reload"' in event
        assert f'"ID":"{info["ID"]}"'.encode() in event
    for text in ('{"bogus": 1}', "{"):
        manager.settings.write_text(text)
        manager.reload()
    info = _get(manager, "/info")
    assert isinstance(info, dict)
    assert (info["Labels"], info["Debug"]) == (["c=d"], True)
    log = (manager.root / "log").read_text()
    assert "the following directives don't match any configuration option: bogus" in log
    manager.stop()


def _lives_in(pid: int) -> set[str]:
    return {line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}


def test_what_holds_containers_has_a_cgroup_of_its_own(manager: Manager) -> None:
    manager.start()
    assert manager.process is not None
    assert _lives_in(manager.process.pid) == _lives_in(os.getpid())
    assert ask(manager.socket, "POST", "/images/load?quiet=1", images.busybox())[0] == 200
    body = json.dumps(
        {"Image": images.NAME, "Cmd": ["cat"], "OpenStdin": True, "HostConfig": {"AutoRemove": True}}
    ).encode()
    status, answer = ask(manager.socket, "POST", "/containers/create?name=held", body)
    assert status == 201, answer
    assert ask(manager.socket, "POST", "/containers/held/start")[0] == 204
    state = _get(manager, "/containers/held/json")
    assert isinstance(state, dict)
    pid = state["State"]["Pid"]
    keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    name = bridge_name(str(manager.root / "data"))
    assert f"/{name}/engine" in _lives_in(keeper)
    assert not any(group.startswith(f"/{name}/engine") for group in _lives_in(pid))
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "0\n"
    manager.stop()
    # The container lives on without its daemon, and so does the group of what holds it.
    assert manager.groups
    os.kill(pid, 0)
    manager.start()
    assert ask(manager.socket, "DELETE", "/containers/held?force=1")[0] == 204
    manager.stop()
    assert manager.groups == []


@pytest.fixture
def installed(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sampan", "system", "service", "--root", str(tmp_path), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="needs systemctl")
def test_the_units_are_installed_and_removed(
    installed: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    units = tmp_path / "etc/systemd/system"
    done = installed("--group", "0", "install", "--", "--label", "a=100% $b")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert sorted(path.name for path in units.rglob("sampan.*")) == [
        "sampan.service",
        "sampan.service",
        "sampan.socket",
        "sampan.socket",
    ]
    text = (units / "sampan.service").read_text()
    for line in ("Delegate=yes", "KillMode=process", "Type=notify"):
        assert f"\n{line}\n" in text
    assert ' -H fd:// --label "a=100%% $$b"\n' in text
    assert "\nSocketGroup=0\n" in (units / "sampan.socket").read_text()
    done = installed("uninstall")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.rglob("sampan*")) == []
    done = installed("uninstall")
    assert (done.returncode, done.stderr) == (1, "the service is not installed\n")


def test_a_unit_of_somebody_elses_stays(
    installed: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    (units / "sampan.service").write_text("[Unit]\n")
    for action in ("install", "uninstall"):
        done = installed(action)
        assert done.returncode == 1
        assert "was not made by `sampan system service install`: remove it first" in done.stderr
    assert (units / "sampan.service").read_text() == "[Unit]\n"


def test_the_daemon_opens_more_files_than_a_container_may(tmp_path: Path) -> None:
    """systemd starts services with a soft limit of 1024, which programs that use select() rely on."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, before[1]))
    try:
        with serving.daemon() as served:
            command = [
                "docker",
                "-H",
                served.host,
                "run",
                "--rm",
                "busybox",
                "sh",
                "-c",
                "ulimit -Sn; ulimit -Hn",
            ]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            pid = Path(served.root, "run/sampan.pid").read_text().strip()
            limits = Path(f"/proc/{pid}/limits").read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert ran.stdout.split() == ["1000", str(before[1])]
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3:5] == [str(before[1])] * 2
