"""``sampan oci`` on real namespaces, as its callers use it: one process for each command."""

from __future__ import annotations

import glob
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.linux import process
from sampan.sandbox import cgroups
from sampan.sandbox.cgroups_files import mount_points
from sampan.spec import seccomp
from sampan.spec.runtime import DEFAULT_CAPABILITIES, default_spec
from tests.root.boxes import make_root

pytestmark = pytest.mark.root

ENTRY = "import sys; from sampan.oci.entry import run_and_exit; run_and_exit(['oci', *sys.argv[1:]])"


class Bundle:
    """A bundle with a busybox root, a runtime root, and a name that nobody else has."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = f"sampan-oci-{uuid.uuid4().hex[:8]}"
        self.spec: Any = default_spec()
        self.spec["linux"]["namespaces"].append({"type": "cgroup"})
        self.spec["hostname"] = "box"
        self.spec["root"]["path"] = "rootfs"
        make_root(directory / "rootfs")

    @property
    def states(self) -> Path:
        return self.directory / "states"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", ENTRY, "--root", str(self.states), *words]

    def call(self, *words: str, code: int = 0, **more: Any) -> str:
        """Run one command; what it wrote to both streams."""
        if words[0] in ("create", "run"):
            (self.directory / "config.json").write_text(json.dumps(self.spec))
            words = (words[0], "--bundle", str(self.directory), *words[1:])
        more.setdefault("stdin", subprocess.DEVNULL)
        with open(self.directory / "said", "wb+") as said:
            # A created container keeps the streams: a pipe would not end before it.
            done = subprocess.run(
                self.command(*words), stdout=said, stderr=said, timeout=30, check=False, **more
            )
            said.seek(0)
            text = said.read().decode()
        assert done.returncode == code, text
        return text

    def sh(self, script: str, code: int = 0) -> list[str]:
        self.spec["process"]["args"] = ["sh", "-c", script]
        return self.call("run", self.name, code=code).splitlines()

    def status(self) -> str:
        found: str = json.loads(self.call("state", self.name))["status"]
        return found

    def traces(self) -> list[str]:
        left = [path for mount in mount_points() for path in glob.glob(f"{mount}/{self.name}*")]
        left += [str(path) for path in self.states.glob("*") if not path.name.startswith(".")]
        return left


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    made = Bundle(tmp_path)
    process.set_child_subreaper()
    try:
        yield made
        assert made.traces() == []
    finally:
        subprocess.run(made.command("delete", "--force", made.name), check=False)
        process.set_child_subreaper(on=False)


def test_run_is_a_container_from_begin_to_end(bundle: Bundle) -> None:
    lines = bundle.sh("echo $$; hostname; id -u; ls /dev | wc -l; exit 7", code=7)
    assert lines[:3] == ["1", "box", "0"]


def test_the_lifecycle_of_a_created_container(bundle: Bundle) -> None:
    bundle.spec["process"]["args"] = [
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo ready > /ready; while :; do sleep 0.02; done",
    ]
    bundle.spec["annotations"] = {"a": "b"}
    pid_file = bundle.directory / "pid"
    bundle.call("create", "--pid-file", str(pid_file), bundle.name)
    pid = int(pid_file.read_text())
    state = json.loads(bundle.call("state", bundle.name))
    assert (state["status"], state["pid"], state["annotations"]) == ("created", pid, {"a": "b"})
    assert state["bundle"] == str(bundle.directory)
    assert "already exists" in bundle.call("create", bundle.name, code=1)
    assert not (bundle.directory / "rootfs/ready").exists()
    bundle.call("start", bundle.name)
    assert bundle.status() == "running"
    assert "already running" in bundle.call("start", bundle.name, code=1)
    assert "that is not stopped: running" in bundle.call("delete", bundle.name, code=1)
    bundle.call("pause", bundle.name)
    assert bundle.status() == "paused"
    assert "paused container" in bundle.call("exec", bundle.name, "true", code=1)
    bundle.call("resume", bundle.name)
    ready = "until [ -e /ready ]; do sleep 0.01; done; id -u; exit 3"
    assert bundle.call("exec", "--user", "1000:1000", bundle.name, "sh", "-c", ready, code=3) == "1000\n"
    assert pid in json.loads(bundle.call("ps", "--format", "json", bundle.name))
    assert f"{bundle.name}   {pid}" in bundle.call("list")
    bundle.call("kill", bundle.name, "TERM")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert bundle.status() == "stopped"
    assert "container not running" in bundle.call("kill", bundle.name, code=1)
    bundle.call("delete", bundle.name)
    assert "container does not exist" in bundle.call("delete", bundle.name, code=1)
    bundle.call("delete", "--force", bundle.name)


@pytest.mark.parametrize("status", ["created", "running", "paused"])
def test_delete_by_force_ends_whatever_there_is(bundle: Bundle, status: str) -> None:
    bundle.spec["process"]["args"] = ["sleep", "100"]
    bundle.call("create", bundle.name)
    if status != "created":
        bundle.call("start", bundle.name)
    if status == "paused":
        bundle.call("pause", bundle.name)
    assert bundle.status() == status
    bundle.call("delete", "--force", bundle.name)


def test_a_creation_that_was_killed_is_cleared_by_force(bundle: Bundle) -> None:
    (bundle.states / bundle.name).mkdir(parents=True)
    (bundle.states / bundle.name / "group").write_text(f"/{bundle.name}")
    cgroups.detect().group(f"/{bundle.name}").create({})
    bundle.call("delete", "--force", bundle.name)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["nosuch"], 1, 'unable to start container process: exec: "nosuch": executable file not found'),
        (["/etc"], 1, 'exec: "/etc": is a directory'),
    ],
)
def test_a_program_that_cannot_run_is_told_in_the_log(
    bundle: Bundle, args: list[str], code: int, said: str
) -> None:
    bundle.spec["process"]["args"] = args
    (bundle.directory / "config.json").write_text(json.dumps(bundle.spec))
    log = bundle.directory / "log.json"
    command = bundle.command(
        *("--log", str(log), "--log-format", "json"),
        *("create", "--bundle", str(bundle.directory), bundle.name),
    )
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == code
    record = json.loads(log.read_text())
    assert record["level"] == "error"
    assert said in record["msg"]


def receive_terminal(listener: socket.socket) -> int:
    accepted, _ = listener.accept()
    with accepted:
        _, fds, _, _ = socket.recv_fds(accepted, 4096, 1)
    return fds[0]


def test_terminals_are_sent_to_the_console_socket(bundle: Bundle) -> None:
    bundle.spec["process"].update(
        {
            "terminal": True,
            "consoleSize": {"height": 33, "width": 99},
            "args": ["sh", "-c", "stty size; exit 4"],
        }
    )
    assert "without setting console socket" in bundle.call("create", bundle.name, code=1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bundle.directory / "console"))
        listener.listen(1)
        pid_file = bundle.directory / "pid"
        bundle.call(
            *("create", "--console-socket", str(bundle.directory / "console")),
            *("--pid-file", str(pid_file), bundle.name),
        )
        master = receive_terminal(listener)
    bundle.call("start", bundle.name)
    assert os.waitstatus_to_exitcode(os.waitpid(int(pid_file.read_text()), 0)[1]) == 4
    assert os.read(master, 100) == b"33 99\r\n"
    os.close(master)
    bundle.call("delete", bundle.name)


def test_a_terminal_is_not_put_where_a_link_points(bundle: Bundle, tmp_path: Path) -> None:
    """A volume at /dev has a link at the terminal's place, and a devpts below it (CVE-2025-52565)."""
    volume = tmp_path / "dev"
    volume.mkdir()
    (volume / "console").symlink_to("/proc/sys/kernel/hostname")
    bundle.spec["process"].update({"terminal": True, "args": ["true"]})
    bundle.spec["linux"].update({"maskedPaths": [], "readonlyPaths": []})
    mounts = [mount for mount in bundle.spec["mounts"] if not mount["destination"].startswith("/dev")]
    mounts.append({"destination": "/dev", "type": "bind", "source": str(volume), "options": ["rbind"]})
    mounts += [mount for mount in bundle.spec["mounts"] if mount["destination"] == "/dev/pts"]
    bundle.spec["mounts"] = mounts
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bundle.directory / "console"))
        listener.listen(1)
        words = ("create", "--console-socket", str(bundle.directory / "console"), bundle.name)
        assert "(/dev/console): is a symbolic link" in bundle.call(*words, code=1)


def test_hooks_run_where_and_when_they_belong(bundle: Bundle, tmp_path: Path) -> None:
    told = tmp_path / "told"
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    bundle.spec["hooks"] = {
        kind: [
            {
                "path": "/bin/sh",
                "args": ["sh", "-c", f"echo {kind} $(readlink /proc/self/ns/net) $(cat) >> {told}"],
            }
        ]
        for kind in kinds
    }
    # Its path is the container's, and it comes before the program.
    bundle.spec["hooks"]["startContainer"] = [{"path": "/bin/touch", "args": ["touch", "/hooked"]}]
    assert bundle.sh("ls /hooked; readlink /proc/self/ns/net")[0] == "/hooked"
    lines = [line.split(" ", 2) for line in told.read_text().splitlines()]
    assert [line[0] for line in lines] == list(kinds)
    ours = os.readlink("/proc/self/ns/net")
    assert [line[1] == ours for line in lines] == [True, True, False, True, True]
    statuses = [json.loads(line[2])["status"] for line in lines]
    assert statuses == ["creating", "creating", "creating", "running", "stopped"]


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_undoes_the_creation(bundle: Bundle, kind: str) -> None:
    bundle.spec["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 3"]}]}
    bundle.spec["process"]["args"] = ["true"]
    said = bundle.call("run", bundle.name, code=1)
    assert f"error running {kind} hook #0: exit status 3, stdout: , stderr: no" in said


def test_a_hook_that_takes_too_long_is_killed(bundle: Bundle) -> None:
    bundle.spec["hooks"] = {"prestart": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]}
    bundle.spec["process"]["args"] = ["true"]
    assert "ran past specified timeout of 1.0s" in bundle.call("run", bundle.name, code=1)


def test_a_private_user_namespace_sees_the_root_as_its_maker_left_it(bundle: Bundle) -> None:
    bundle.directory.chmod(0o755)
    for parent in bundle.directory.parents[:2]:
        parent.chmod(0o755)
    mapping = [{"containerID": 0, "hostID": 300000, "size": 65536}]
    bundle.spec["linux"].update({"uidMappings": mapping, "gidMappings": mapping})
    bundle.spec["linux"]["namespaces"].append({"type": "user"})
    os.chown(bundle.directory / "rootfs/root", 300000, 300000)
    lines = bundle.sh("cat /proc/self/uid_map; stat -c %u /root /bin /dev/null")
    assert lines[0].split() == ["0", "300000", "65536"]
    assert lines[1:] == ["0", "65534", "0"]


def test_namespaces_by_path_are_joined(bundle: Bundle) -> None:
    holder = subprocess.Popen(
        ["unshare", "-niu", "sh", "-c", "hostname held; echo; exec sleep 100"], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        files = {"network": "net", "ipc": "ipc", "uts": "uts"}
        for namespace in bundle.spec["linux"]["namespaces"]:
            if namespace["type"] in files:
                namespace["path"] = f"/proc/{holder.pid}/ns/{files[namespace['type']]}"
        bundle.spec["hostname"] = ""
        lines = bundle.sh("hostname; for kind in net ipc uts; do readlink /proc/self/ns/$kind; done")
        expected = [os.readlink(f"/proc/{holder.pid}/ns/{name}") for name in ("net", "ipc", "uts")]
        assert lines == ["held", *expected]
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_mounts_of_all_kinds(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/file").write_text("kept")
    bundle.spec["mounts"] += [
        {
            "destination": "/ro",
            "type": "bind",
            "source": str(tmp_path / "shared"),
            "options": ["rbind", "ro"],
        },
        {"destination": "relative", "type": "none", "source": "shared", "options": ["bind", "noexec"]},
        {
            "destination": "/t",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "size=64k", "mode=700"],
        },
        {"destination": "/file", "type": "bind", "source": str(tmp_path / "shared/file")},
    ]
    lines = bundle.sh(
        "cat /ro/file /file; echo; touch /ro/x 2>&1; touch /relative/made; stat -c %a /t;"
        "grep -c ' /t ' /proc/mounts"
    )
    assert lines[0] == "keptkept"
    assert "Read-only file system" in lines[1]
    assert lines[2:] == ["700", "1"]
    assert (tmp_path / "shared/made").exists()


def test_groups_are_shown_without_a_cgroup_namespace_too(bundle: Bundle) -> None:
    bundle.spec["linux"]["namespaces"] = [
        n for n in bundle.spec["linux"]["namespaces"] if n["type"] != "cgroup"
    ]
    bundle.spec["linux"]["resources"]["pids"] = {"limit": 77}
    lines = bundle.sh("cd /sys/fs/cgroup; cat pids/pids.max pids.max 2>/dev/null; touch x 2>&1; true")
    assert lines[0] == "77"
    assert "Read-only" in lines[1] or "denied" in lines[1]


def test_limits_and_identity(bundle: Bundle) -> None:
    bundle.spec["process"].update(
        {
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5], "umask": 0o27},
            "noNewPrivileges": True,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
            "cwd": "/new/place",
        }
    )
    bundle.spec["linux"]["seccomp"] = seccomp.resolve(
        seccomp.default_profile(),
        capabilities=DEFAULT_CAPABILITIES,
        architecture=os.uname().machine,
        kernel=(6, 0),
    )
    # Twice: compiled, and found compiled.
    for _ in range(2):
        lines = bundle.sh(
            "id -u; id -G; umask; ulimit -n; ulimit -Hn; pwd; echo $HOME;"
            "grep -e ^Seccomp: -e NoNew /proc/self/status"
        )
        assert lines[:7] == ["1000", "1000 5", "0027", "50", "60", "/new/place", "/tmp"]
        assert [line.split()[1] for line in lines[7:]] == ["1", "2"]


def test_time_offsets_and_personality(bundle: Bundle) -> None:
    bundle.spec["linux"]["namespaces"].append({"type": "time"})
    bundle.spec["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}}
    bundle.spec["linux"]["personality"] = {"domain": "LINUX32"}
    lines = bundle.sh("cut -d. -f1 /proc/uptime; uname -m")
    assert int(lines[0]) > 1_000_000
    assert lines[1] != os.uname().machine


def test_descriptors_are_preserved(bundle: Bundle) -> None:
    read, write = os.pipe()
    bundle.spec["process"]["args"] = ["sh", "-c", "echo through >&3"]
    (bundle.directory / "config.json").write_text(json.dumps(bundle.spec))
    command = bundle.command("run", "--bundle", str(bundle.directory), "--preserve-fds", "1", bundle.name)
    as_third = f"import os, sys; os.dup2({write}, 3); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", as_third, *command], pass_fds=(write,), capture_output=True, check=False
    )
    os.close(write)
    assert os.read(read, 100) == b"through\n"
    os.close(read)
    assert done.returncode == 0, done.stderr


def test_update_changes_limits(bundle: Bundle) -> None:
    bundle.spec["process"]["args"] = ["sleep", "100"]
    bundle.call("create", bundle.name)
    resources = bundle.directory / "resources.json"
    resources.write_text(json.dumps({"pids": {"limit": 55}}))
    bundle.call("update", "--resources", str(resources), bundle.name)
    found = [Path(mount, bundle.name, "pids.max") for mount in mount_points()]
    assert [path.read_text() for path in found if path.exists()] == ["55\n"]
    bundle.call("update", "--pids-limit", "66", bundle.name)
    assert [path.read_text() for path in found if path.exists()] == ["66\n"]
    bundle.call("delete", "--force", bundle.name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sysctl": {"kernel.panic": "1"}}, 'sysctl "kernel.panic" is not in a separate kernel namespace'),
        ({"namespaces": [{"type": "pid"}]}, "a new mount namespace is needed"),
        ({"namespaces": [{"type": "mount"}, {"type": "mount"}]}, "duplicated ns"),
        ({"cgroupsPath": "a:b:c"}, "systemd's slices are not supported"),
        ({"seccomp": {"defaultAction": "SCMP_ACT_FOO"}}, "linux.seccomp"),
        ({"rootfsPropagation": "odd"}, "rootfsPropagation=odd is not supported"),
        ({"devices": [{"type": "x", "path": "/dev/a"}]}, "invalid device type: x"),
    ],
)
def test_refusals_leave_nothing(bundle: Bundle, change: dict[str, Any], said: str) -> None:
    bundle.spec["linux"].update(change)
    bundle.spec["process"]["args"] = ["true"]
    assert said in bundle.call("run", bundle.name, code=1)


def test_the_whole_container_dies_with_kill_all(bundle: Bundle) -> None:
    bundle.spec["linux"]["namespaces"] = [n for n in bundle.spec["linux"]["namespaces"] if n["type"] != "pid"]
    bundle.spec["process"]["args"] = ["sh", "-c", "sleep 100 & exec sleep 100"]
    pid_file = bundle.directory / "pid"
    bundle.call("create", "--pid-file", str(pid_file), bundle.name)
    bundle.call("start", bundle.name)
    bundle.call("kill", "--all", bundle.name, "KILL")
    code = os.waitstatus_to_exitcode(os.waitpid(int(pid_file.read_text()), 0)[1])
    assert code == -signal.SIGKILL
    bundle.call("delete", bundle.name)


def test_it_can_tell_what_it_is(bundle: Bundle) -> None:
    assert bundle.call("--version").startswith("sampan version ")
    assert json.loads(bundle.call("features"))["linux"]["seccomp"]["enabled"] is True
    assert "CRIU" in bundle.call("checkpoint", "x", code=1)
    assert "systemd" in bundle.call("--systemd-cgroup", "create", "x", code=1)
