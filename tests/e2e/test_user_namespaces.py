"""The table of docs/user-namespaces.md, a test for each row; the number of the row is in the test's name."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from sampan.wire import tar
from sampan.wire.tar import Member
from tests import archives
from tests.e2e import debian, serving
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

pytestmark = [pytest.mark.root, pytest.mark.e2e]

Docker: TypeAlias = Callable[..., str]

OWNED = "owned:latest"  # files of several owners in the first of fifty layers
BEYOND = "beyond:latest"  # a file of an owner beyond what any range covers
WIDE_ID, BEYOND_ID = 70_000, 100_000_000


@pytest.fixture(scope="module")
def docker(daemon: Daemon, docker: str) -> Docker:
    """Run docker with arguments; what it prints. The command must succeed, unless ``fails`` is said."""

    def run(*arguments: str, fails: bool = False, host: str = daemon.host) -> str:
        done = subprocess.run(
            [docker, "-H", host, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode != 0) is fails, (arguments, done)
        return done.stderr + done.stdout if fails else done.stdout

    return run


@pytest.fixture(scope="module", autouse=True)
def _images(daemon: Daemon) -> Iterator[None]:
    with open("/bin/busybox", "rb") as file:
        program = file.read()
    base: dict[str, bytes | Member] = {
        "bin/sh": Member(name=b"bin/sh", kind=tar.SYMLINK, link=b"busybox", mode=0o777),
        "data": Member(name=b"data/", kind=tar.DIRECTORY, mode=0o755, uid=1000, gid=1000),
        "data/of-1000": Member(name=b"data/of-1000", uid=1000, gid=1000, mode=0o600),
        "data/of-0": Member(name=b"data/of-0", mode=0o600),
    }
    plain = archives.pack(base, end=b"") + _program(program)
    wide = Member(name=b"data/of-70000", uid=WIDE_ID, gid=WIDE_ID, mode=0o600)
    layers = [plain, archives.pack({"wide": wide})]
    layers += [archives.layer(**{f"layer{number}": b"x"}) for number in range(2, 50)]
    far = archives.pack({"far": Member(name=b"far", uid=BEYOND_ID)})
    config = {"Env": ["PATH=/bin"]}
    for name, parts in ((OWNED, layers), (BEYOND, [plain, far])):
        packed = archives.pack(archives.docker_files(parts, [name], config=config))
        status, said = ask(daemon.socket, "POST", "/images/load?quiet=1", packed)
        assert status == 200, said
    yield
    for name in (OWNED, BEYOND):
        ask(daemon.socket, "DELETE", f"/images/{name}?force=1")


def _program(data: bytes) -> bytes:
    head = tar.header(Member(name=b"bin/busybox", size=len(data), mode=0o755))
    return head + data + bytes(tar.padding(len(data))) + tar.END


@pytest.fixture(scope="module")
def debian_image(daemon: Daemon) -> Iterator[str]:
    root = debian.tree()
    if root is None:
        pytest.skip("there is no Debian to be had")
    debian.load(daemon.host, root)
    yield debian.NAME
    ask(daemon.socket, "DELETE", f"/images/{debian.NAME}?force=1")


def inspect(docker: Docker, name: str) -> Any:
    return json.loads(docker("inspect", "-f", "{{json .UserNamespace}}", name))


def owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


def sh(text: str) -> tuple[str, str, str]:
    return "sh", "-c", text


class TestFiles:
    def test_1_what_root_makes_in_a_bind_is_roots_on_the_host(self, docker: Docker, tmp_path: Path) -> None:
        docker("run", "--rm", "-v", f"{tmp_path}:/b", "busybox", *sh("touch /b/f; mkdir /b/d; ln -s x /b/l"))
        assert {owner(tmp_path / name) for name in "fdl"} == {(0, 0)}

    def test_2_what_a_user_makes_in_a_bind_is_hers_on_the_host(self, docker: Docker, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        docker("run", "--rm", "-u", "1000:2000", "-v", f"{tmp_path}:/b", "busybox", "touch", "/b/f")
        docker("run", "--rm", "-u", "app", "-v", f"{tmp_path}:/b", "busybox", "touch", "/b/g")
        assert owner(tmp_path / "f") == (1000, 2000)
        assert owner(tmp_path / "g") == (1000, 1000)
        docker("run", "--rm", "-v", f"{tmp_path}:/b", "busybox", "chown", "33:44", "/b/f")
        assert owner(tmp_path / "f") == (33, 44)

    def test_3_files_in_a_bind_are_seen_with_their_owners(self, docker: Docker, tmp_path: Path) -> None:
        for number in (0, 1000, 65534):
            (tmp_path / str(number)).write_text("text")
            (tmp_path / str(number)).chmod(0o600)
            os.chown(tmp_path / str(number), number, number)
        seen = docker(
            "run", "--rm", "-v", f"{tmp_path}:/b", "busybox", *sh("stat -c %n:%u:%g /b/*; cat /b/*")
        )
        assert seen == "/b/0:0:0\n/b/1000:1000:1000\n/b/65534:65534:65534\ntexttexttext"
        tmp_path.chmod(0o755)
        reading = ("run", "--rm", "-u", "1000", "-v", f"{tmp_path}:/b", "busybox", "cat")
        assert docker(*reading, "/b/1000") == "text"
        assert "Permission denied" in docker(*reading, "/b/0", fails=True)

    def test_4_the_range_covers_the_owner_of_a_bind(self, docker: Docker, tmp_path: Path) -> None:
        os.chown(tmp_path, 400_123, 400_123)
        (tmp_path / "hers").touch()
        os.chown(tmp_path / "hers", 400_123, 400_123)
        made = "stat -c %u /b/hers; touch /b/f; chown 400123 /b/f; cut -c1-21 /proc/self/uid_map"
        seen = docker("run", "--rm", "-v", f"{tmp_path}:/b", "busybox", *sh(made))
        assert seen.splitlines()[0] == "400123"
        assert int(seen.split()[2]) > 0
        assert owner(tmp_path / "f") == (400_123, 0)

    def test_5_containers_that_share_a_volume_agree_on_owners(self, docker: Docker) -> None:
        try:
            one = "touch /v/f; chmod 777 /v; chown 1000:1000 /v/f; cat /proc/self/uid_map"
            first = docker("run", "--rm", "-v", "userns-shared:/v", "busybox", *sh(one))
            two = "stat -c %u:%g /v/f; echo x >>/v/f && touch /v/g; cat /proc/self/uid_map"
            second = docker("run", "--rm", "-u", "1000", "-v", "userns-shared:/v", "busybox", *sh(two))
            assert second.startswith("1000:1000\n")
            assert first.split()[1] != second.split()[2]
            place = Path(docker("volume", "inspect", "-f", "{{.Mountpoint}}", "userns-shared").strip())
            assert (owner(place / "f"), owner(place / "g")) == ((1000, 1000), (1000, 1000))
        finally:
            docker("volume", "rm", "-f", "userns-shared")

    def test_6_a_new_volume_takes_the_images_files_with_their_owners(self, docker: Docker) -> None:
        try:
            seen = docker(
                "run", "--rm", "-v", "userns-new:/data", OWNED, *sh("busybox stat -c %n:%u /data/*")
            )
            assert seen == "/data/of-0:0\n/data/of-1000:1000\n/data/of-70000:70000\n"
            place = Path(docker("volume", "inspect", "-f", "{{.Mountpoint}}", "userns-new").strip())
            assert [owner(place), owner(place / "of-70000")] == [(1000, 1000), (WIDE_ID, WIDE_ID)]
        finally:
            docker("volume", "rm", "-f", "userns-new")

    def test_7_cp_keeps_to_the_containers_ids(self, docker: Docker, tmp_path: Path) -> None:
        try:
            docker("run", "--name", "userns-cp", "busybox", *sh("echo hers >/f; chown 1000:1000 /f"))
            docker("cp", "userns-cp:/f", str(tmp_path / "out"))
            assert owner(tmp_path / "out") == (0, 0)  # whoever calls the client
            os.chown(tmp_path / "out", 1234, 4321)
            docker("cp", "-a", str(tmp_path / "out"), "userns-cp:/g")
            docker("commit", "userns-cp", "userns-copied")
            seen = docker("run", "--rm", "userns-copied", *sh("stat -c %u:%g /f /g"))
            assert seen == "1000:1000\n1234:4321\n"
        finally:
            docker("rm", "-f", "userns-cp")
            docker("rmi", "-f", "userns-copied")

    def test_8_commit_keeps_owners_as_the_container_saw_them(self, docker: Docker) -> None:
        try:
            docker("run", "--name", "userns-made", "busybox", *sh("echo 1 >/f; chown 1234:4321 /f"))
            docker("commit", "userns-made", "userns-committed")
            seen = docker("run", "--rm", "userns-committed", *sh("stat -c %u:%g /f /bin"))
            assert seen == "1234:4321\n0:0\n"
        finally:
            docker("rm", "-f", "userns-made")
            docker("rmi", "-f", "userns-committed")

    def test_9_diff_tells_what_the_container_changed(self, docker: Docker) -> None:
        try:
            docker("run", "--name", "userns-diff", OWNED, *sh("busybox rm /data/of-0; echo >/new"))
            assert docker("diff", "userns-diff").splitlines() == ["C /data", "D /data/of-0", "A /new"]
        finally:
            docker("rm", "-f", "userns-diff")

    def test_10_fifty_layers_and_ids_beyond_the_usual_range(self, docker: Docker) -> None:
        seen = docker("run", "--rm", "-u", "70000", OWNED, *sh("busybox cat /layer49 /data/of-70000; echo"))
        assert seen == "x\n"
        count = docker("run", "--rm", OWNED, "busybox", "cat", "/proc/self/uid_map").split()[2]
        assert int(count) == 2 * 65536


@pytest.fixture(scope="class")
def running(docker: Docker) -> Iterator[str]:
    docker("run", "-d", "--name", "userns-running", "busybox", "sleep", "600")
    yield "userns-running"
    docker("rm", "-f", "userns-running")


class TestUsers:
    def test_11_exec_as_any_user(self, docker: Docker, running: str) -> None:
        def ids(user: str) -> str:
            return docker("exec", "-u", user, running, *sh("echo $(id -u):$(id -g)")).strip()

        users = ("root", "app", "1000", "65534:65534", "4242:4343")
        assert [ids(user) for user in users] == ["0:0", "1000:1000", "1000:1000", "65534:65534", "4242:4343"]

    def test_12_exec_as_a_user_beyond_the_range_says_so(self, docker: Docker, running: str) -> None:
        told = docker("exec", "-u", "70000", running, "id", fails=True)
        assert "user id 70000 is not in the container's own range of ids" in told

    def test_13_run_as_a_numeric_user_widens_the_range(self, docker: Docker) -> None:
        assert docker("run", "--rm", "-u", "400123:400123", "busybox", "id", "-u") == "400123\n"

    def test_14_every_container_has_ids_of_its_own(self, docker: Docker, running: str) -> None:
        shown = inspect(docker, running)
        assert shown["Mode"] == "private"
        pid = docker("inspect", "-f", "{{.State.Pid}}", running).strip()
        base = Path(f"/proc/{pid}/uid_map").read_text().split()
        assert [int(word) for word in base] == [0, shown["FirstHostID"], shown["Size"]]
        other = docker("run", "--rm", "busybox", "cat", "/proc/self/uid_map").split()
        assert abs(int(other[1]) - shown["FirstHostID"]) >= 65536
        assert "name=userns" in docker("info", "-f", "{{.SecurityOptions}}")


class TestKernel:
    def test_15_the_engines_socket_works_inside_for_root(
        self, docker: Docker, daemon: Daemon, debian_image: str
    ) -> None:
        script = (
            "use IO::Socket::UNIX; $s = IO::Socket::UNIX->new('/var/run/docker.sock') or die $!;"
            'print $s "GET /v1.41/containers/json HTTP/1.1\\r\\nHost: d\\r\\nConnection: close\\r\\n\\r\\n";'
            "print <$s>"
        )
        mount = f"{daemon.socket}:/var/run/docker.sock"
        said = docker("run", "--rm", "--name", "userns-sock", "-v", mount, debian_image, "perl", "-e", script)
        assert said.startswith("HTTP/1.1 200")
        assert "/userns-sock" in said
        user = ("run", "--rm", "-u", "1000:1000", "-v", mount, debian_image, "perl", "-e", script)
        assert "Permission denied" in docker(*user, fails=True)

    def test_16_ping_as_a_user(self, docker: Docker, debian_image: str) -> None:
        script = "use Socket; socket(S, AF_INET, SOCK_DGRAM, 1) or die $!; print 'sent' if send(S, " + (
            'pack("C2n3", 8, 0, 0xf7fe, 0, 1), 0, pack_sockaddr_in(0, inet_aton("127.0.0.1")))'
        )
        ping = ("run", "--rm", "-u", "1000", debian_image, "perl", "-e", script)
        assert docker(*ping) == "sent"

    def test_17_a_port_below_1024_as_a_user(self, docker: Docker) -> None:
        listen = (
            "nc -l -p 80 </dev/null >/dev/null 2>&1 & until netstat -ltn | grep -q :80; do :; done; echo up"
        )
        assert docker("run", "--rm", "-u", "1000", "busybox", *sh(listen)) == "up\n"

    def test_18_inotify_instances_are_each_containers_own(self, docker: Docker, debian_image: str) -> None:
        with open("/proc/sys/fs/inotify/max_user_instances") as file:
            most = min(int(file.read()), 500) * 3 // 4
        number = {"x86_64": 294, "aarch64": 26}[os.uname().machine]
        script = (
            f"$n = 0; for (1..{most}) {{ $n++ if syscall({number}, 0) >= 0 }}"
            "$| = 1; print qq(made $n\\n); sleep"
        )
        names = [f"userns-inotify{index}" for index in range(3)]
        try:
            for name in names:
                docker("run", "-d", "--name", name, debian_image, "perl", "-e", script)
            for name in names:
                logged = ""
                while "\n" not in logged:
                    logged = docker("logs", name)
                assert logged == f"made {most}\n"
        finally:
            docker("rm", "-f", *names)

    def test_19_setuid_programs(self, docker: Docker, debian_image: str) -> None:
        script = "cp /usr/bin/id /id; chmod 4755 /id; setpriv --reuid 1000 /id -u; setpriv --reuid 1000 id -u"
        assert docker("run", "--rm", debian_image, *sh(script)) == "0\n1000\n"

    def test_20_file_capabilities_and_apt(self, docker: Docker, debian_image: str) -> None:
        script = (
            "apt-get -qq update && apt-get -qqy install --no-install-recommends libcap2-bin hello >/log 2>&1;"
            "hello; cp /usr/bin/perl /perl; setcap cap_net_bind_service=ep /perl; getcap /perl;"
            "ls -ln /usr/bin/hello"
        )
        try:
            seen = docker("run", "--name", "userns-apt", debian_image, *sh(script)).splitlines()
            assert seen[:2] == ["Hello, world!", "/perl cap_net_bind_service=ep"]
            assert seen[2].split()[2:4] == ["0", "0"]
            docker("commit", "userns-apt", "userns-caps")
            effective = (
                "-u",
                "1000",
                "userns-caps",
                "/perl",
                "-ne",
                "print if /CapEff/",
                "/proc/self/status",
            )
            assert docker("run", "--rm", *effective).split() == ["CapEff:", "0000000000000400"]
        finally:
            docker("rm", "-f", "userns-apt")
            docker("rmi", "-f", "userns-caps")

    @pytest.mark.parametrize("user", ["0", "1000"])
    def test_21_places_in_memory(self, docker: Docker, user: str) -> None:
        places = "/t /dev/shm /dev/mqueue"
        script = f"for d in {places}; do touch $d/f && stat -c %u $d/f; done; stat -c %u {places}"
        seen = docker("run", "--rm", "-u", user, "--tmpfs", "/t", "--read-only", "busybox", *sh(script))
        assert seen.split() == [user, user, user, "0", "0", "0"]

    def test_22_a_read_only_root(self, docker: Docker) -> None:
        told = docker("run", "--rm", "--read-only", "busybox", "touch", "/x", fails=True)
        assert "Read-only file system" in told

    def test_23_devices(self, docker: Docker) -> None:
        script = "stat -c %u:%g:%t,%T /dev/z; head -c 3 /dev/z | wc -c; echo x >/dev/full || echo full"
        seen = docker("run", "--rm", "--device", "/dev/zero:/dev/z", "busybox", *sh(script))
        assert seen.splitlines() == ["0:0:1,5", "3", "full"]

    def test_24_a_device_node_cannot_be_made(self, docker: Docker) -> None:
        told = docker("run", "--rm", "busybox", "mknod", "/x", "c", "1", "3", fails=True)
        assert "Operation not permitted" in told
        for flag in (("--cap-add", "MKNOD"), ("--userns", "host")):
            docker("run", "--rm", *flag, "busybox", "mknod", "/x", "c", "1", "3")

    def test_25_administration_of_its_own_namespaces(self, docker: Docker) -> None:
        script = "mount -t tmpfs x /tmp && hostname other && hostname && ip link set lo down && echo down"
        flags = ("--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN")
        seen = docker("run", "--rm", "--security-opt", "seccomp=unconfined", *flags, "busybox", *sh(script))
        assert seen == "other\ndown\n"


FALLBACKS: dict[str, tuple[str, ...]] = {
    "--userns host": ("--userns", "host"),
    "--privileged": ("--privileged",),
    "--network host": ("--network", "host"),
    "--pid host": ("--pid", "host"),
    "--ipc host": ("--ipc", "host"),
    "--cgroupns host": ("--cgroupns", "host"),
    "--uts host with --cap-add SYS_ADMIN": ("--uts", "host", "--cap-add", "SYS_ADMIN"),
    "--cap-add IPC_LOCK": ("--cap-add", "ipc_lock"),
    "--cap-add ALL": ("--cap-add", "ALL"),
    "/proc cannot be given a container's own user ids": ("-v", "/proc:/host:ro"),
    "/sys cannot be given a container's own user ids": ("-v", "/sys:/host:ro"),
    "it has to do with user id 100000000, which no range of ids of its own would cover": ("-u", "100000000"),
}


class TestFallbacks:
    @pytest.mark.parametrize("reason", FALLBACKS)
    def test_26_the_hosts_ids_and_why(self, docker: Docker, reason: str) -> None:
        try:
            flags = FALLBACKS[reason]
            docker("create", "--name", "userns-fallback", *flags, "busybox", "cat", "/proc/self/uid_map")
            expected = {"Mode": "host", "Reason": reason}
            assert inspect(docker, "userns-fallback") == expected
            assert docker("start", "-a", "userns-fallback").split() == ["0", "0", "4294967295"]
            assert inspect(docker, "userns-fallback") == expected
        finally:
            docker("rm", "-f", "userns-fallback")

    def test_27_an_image_with_ids_beyond_any_range(self, docker: Docker) -> None:
        seen = docker("run", "--rm", BEYOND, *sh("busybox stat -c %u /far; busybox cat /proc/self/uid_map"))
        assert seen.split() == [str(BEYOND_ID), "0", "0", "4294967295"]

    def test_28_what_is_mounted_below_a_bind_counts_too(self, docker: Docker) -> None:
        """The root of the host is like others, but /proc is below it."""
        try:
            docker("run", "-d", "--name", "userns-below", "-v", "/:/host:ro", "busybox", "sleep", "600")
            shown = inspect(docker, "userns-below")
            assert shown == {"Mode": "host", "Reason": "/ cannot be given a container's own user ids"}
            docker("exec", "userns-below", "test", "-r", "/host/proc/1/environ")
        finally:
            docker("rm", "-f", "userns-below")

    def test_29_who_did_not_ask_for_it_is_told(self, docker: Docker, daemon: Daemon) -> None:
        def warned(host: dict[str, Any]) -> object:
            body = json.dumps({"Image": "busybox", "HostConfig": host}).encode()
            status, answer = ask(daemon.socket, "POST", "/containers/create", body)
            assert status == 201, answer
            created = json.loads(answer)
            ask(daemon.socket, "DELETE", f"/containers/{created['Id']}")
            return created["Warnings"]

        said = "The container has the host's user ids: /proc cannot be given a container's own user ids"
        assert warned({"Binds": ["/proc:/host"]}) == [said]
        assert warned({"Privileged": True}) == []
        assert warned({}) == []


@pytest.fixture(scope="class")
def strict(docker: Docker) -> Iterator[Daemon]:
    with serving.daemon("--userns-fallback", "deny") as served:
        yield served


class TestDenied:
    @pytest.mark.parametrize("reason", FALLBACKS)
    def test_30_the_hosts_ids_can_be_forbidden(self, strict: Daemon, docker: Docker, reason: str) -> None:
        told = docker("create", *FALLBACKS[reason], "busybox", "true", fails=True, host=strict.host)
        assert told.splitlines()[0] == (
            f"Error response from daemon: {reason}: this needs the host's user ids, which this engine does "
            "not give to containers (--userns-fallback deny); do without, or allow it in the daemon's options"
        )

    def test_31_also_when_it_is_only_found_at_the_start(self, strict: Daemon, docker: Docker) -> None:
        told = docker("run", "--rm", "-v", "/:/host:ro", "busybox", "true", fails=True, host=strict.host)
        assert "/ cannot be given a container's own user ids" in told

    def test_32_two_engines_of_a_host_give_different_ids(self, strict: Daemon, docker: Docker) -> None:
        ours = docker("run", "--rm", "busybox", "cat", "/proc/self/uid_map").split()
        theirs = docker("run", "--rm", "busybox", "cat", "/proc/self/uid_map", host=strict.host).split()
        assert int(ours[1]) >> 25 != int(theirs[1]) >> 25
