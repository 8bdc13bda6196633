"""Attacks by what is in an image, a layer or an archive, and by who is on the host beside the containers."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sampan.spec import digest as digests
from sampan.wire import tar
from sampan.wire.tar import Member
from tests import archives
from tests.attacks.conftest import Docker
from tests.attacks.test_files import link
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

pytestmark = [pytest.mark.root, pytest.mark.e2e]

INDEX = "application/vnd.oci.image.index.v1+json"
NOBODY = 65534


def as_user(uid: int, work: Callable[[], bool]) -> bool:
    """What ``work`` finds as a user of the host who has no rights at all."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            code = int(work())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1)
    return code == 1


def test_cve_2021_41091_a_user_of_the_host_gets_into_the_data_root(
    engine: Docker, daemon: Daemon, ids: tuple[str, ...]
) -> None:
    """Root of a container leaves a setuid program, which a user of the host runs."""
    leave = "cp /bin/busybox /v/su; chmod 4755 /v/su; cp /bin/busybox /su; chmod 4755 /su"
    engine(
        "run", *ids, "--name", "box", "-e", "PASSWORD=secret", "-v", "data:/v", "busybox", "sh", "-c", leave
    )
    found = [
        f"{place}/{name}"
        for place, _, names in os.walk(f"{daemon.root}/data")
        for name in names
        if name == "su" or name.startswith("state.db")
    ]
    left = [path for path in found if os.lstat(path).st_mode & stat.S_ISUID]
    assert len(left) == 2, "one in the volume, one in the container"
    os.chmod(daemon.root, 0o755)  # what the test's own directory forbids is not the engine's doing
    try:
        reached = [path for path in found if as_user(NOBODY, lambda path=path: os.access(path, os.R_OK))]  # type: ignore[misc]
    finally:
        os.chmod(daemon.root, 0o700)
    assert reached == []


def test_cve_2021_21284_the_containers_root_gets_into_the_data_root(engine: Docker, daemon: Daemon) -> None:
    """A user of the host with the ids of a container's root changes what the engine keeps."""
    engine("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    pid = json.loads(ask(daemon.socket, "GET", "/containers/box/json")[1])["State"]["Pid"]
    root = int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])
    assert root > 0
    os.chmod(daemon.root, 0o755)
    try:
        for name in ("", "/layers", "/snapshots", "/volumes", "/containers", "/blobs/sha256", "/state.db"):
            path = f"{daemon.root}/data{name}"
            assert not as_user(root, lambda path=path: os.access(path, os.W_OK))  # type: ignore[misc]
            if name:
                assert not as_user(root, lambda path=path: os.access(path, os.F_OK))  # type: ignore[misc]
    finally:
        os.chmod(daemon.root, 0o700)


def deep(name: str) -> bytes:
    return b'{"%s":' % name.encode() * 100_000 + b"1" + b"}" * 100_000


ONE = archives.layer(a=b"x")
CONFIG = archives.config([ONE])
BAD_MANIFESTS: dict[str, Any] = {
    "nothing": None,
    "null": [None],
    "no-image": [{}],
    "numbers": [{"Config": 5, "RepoTags": 5, "Layers": 5}],
    "nulls": [{"Config": None, "RepoTags": None, "Layers": None}],
    "path-up": [{"Config": "../../../../etc/passwd", "RepoTags": [], "Layers": ["../../x"]}],
    "new-line": [{"Config": "c.json", "RepoTags": ["evil\nmore:x"], "Layers": ["0/layer.tar"]}],
    "too-many": [{"Config": "c.json", "RepoTags": ["evil:x"], "Layers": ["0/layer.tar"] * 10_000}],
}


def load(daemon: Daemon, files: Mapping[str, bytes | Member]) -> tuple[int, bytes]:
    return ask(daemon.socket, "POST", "/images/load?quiet=1", archives.pack(dict(files)))


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_cve_2021_21285_a_manifest_that_makes_no_sense(engine: Docker, daemon: Daemon, name: str) -> None:
    manifest = json.dumps(BAD_MANIFESTS[name]).encode()
    status, said = load(daemon, {"c.json": CONFIG, "0/layer.tar": ONE, "manifest.json": manifest})
    assert status == 400, said


BAD_CONFIGS = {
    "deep": deep("rootfs"),
    "null": b"null",
    "no-rootfs": archives.config([ONE], rootfs=None),
    "environment": archives.config([ONE], config={"Env": [None]}),
    "history": archives.config([ONE], history=[None]),
    "os": archives.config([ONE], os=5),
    "triggers": archives.config([ONE], config={"OnBuild": [5]}),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_cve_2021_21285_a_configuration_that_makes_no_sense(
    engine: Docker, daemon: Daemon, name: str
) -> None:
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["evil:x"], "Layers": ["0/layer.tar"]}]).encode()
    files = {"c.json": BAD_CONFIGS[name], "0/layer.tar": ONE, "manifest.json": manifest}
    assert load(daemon, files)[0] == 400


def test_half_a_surrogate_in_an_image_spoils_no_answer(engine: Docker, daemon: Daemon) -> None:
    """JSON can escape what UTF-8 cannot hold: whoever lists images with such a label has to answer."""
    config = archives.config([ONE], config={"Labels": {"\ud800": "\udfff"}, "Env": ["A=\ud800"]})
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["evil:x"], "Layers": ["0/layer.tar"]}]).encode()
    status, said = load(daemon, {"c.json": config, "0/layer.tar": ONE, "manifest.json": manifest})
    assert status == 200, said
    for target in ("/images/json", "/images/evil:x/json", "/images/evil:x/history"):
        assert ask(daemon.socket, "GET", target)[0] == 200
    status, said = ask(daemon.socket, "GET", "/images/evil:x/json")
    assert json.loads(said)["Config"]["Labels"] == {"\ufffd": "\ufffd"}


@pytest.mark.parametrize("entries", [1, 10])
def test_indexes_of_indexes_end(engine: Docker, daemon: Daemon, entries: int) -> None:
    """A hundred of them in each other, each named once, or ten times: 10 to the power of 100 ways."""
    files: dict[str, bytes | Member] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    raw = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    for _ in range(100):
        files[f"blobs/sha256/{digests.hex_of(digests.of(raw))}"] = raw
        inner = [archives.descriptor(raw, INDEX)] * entries
        raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": inner}).encode()
    status, said = load(daemon, {**files, "index.json": raw})
    assert (status, b"too deep" in said) == (400, True), said


@pytest.mark.parametrize("place", ["/x/../../../../../../../..{}", "/..{}", "/link"])
def test_cve_2022_23648_volumes_of_an_image_lead_to_the_host(
    engine: Docker, daemon: Daemon, public: Path, place: str
) -> None:
    """What is in an image at a volume's place is copied into it: the host's, if the place leads there."""
    (public / "secret").write_text("the host's")
    place = place.format(public)
    top = archives.pack({"0": link("link", str(public)), "1": link("x", "/")})
    config = archives.config([top], config={"Volumes": {place: {}}})
    manifest = json.dumps([{"Config": "c", "RepoTags": ["evil:x"], "Layers": ["l"]}]).encode()
    status, said = load(daemon, {"c": config, "l": top, "manifest.json": manifest})
    assert status == 200, said
    created = engine("create", "--name", "box", "evil:x", "none")
    engine("start", "box")
    engine("cp", f"box:{place}/.", "-")
    assert "the host's" not in engine("cp", f"box:{place}/secret", "-").stdout, created
    for path, _, names in os.walk(f"{daemon.root}/data/volumes"):
        assert "secret" not in names, path
    assert os.listdir(public) == ["secret"]


def test_layers_of_links_change_nothing_outside(engine: Docker, daemon: Daemon, public: Path) -> None:
    """Links to links, files through them, hard links to what they lead to: 3,000 of them."""
    (public / "secret").write_text("the host's")
    up = "../" * 30
    members = [link("0", f"{up}{str(public)[1:]}")]
    for number in range(1, 1000):
        members.append(link(str(number), str(number - 1)))
        members.append(Member(name=b"%d/made%d" % (number % 40, number)))
        members.append(Member(name=b"h%d" % number, kind=tar.LINK, link=b"%d/secret" % (number % 40)))
    top = archives.pack({str(number): member for number, member in enumerate(members)})
    status, said = load(daemon, archives.docker_files([top], ["evil:latest"]))
    assert status in (200, 400), said
    assert os.listdir(public) == ["secret"]
    assert os.stat(public / "secret").st_nlink == 1


def test_a_layer_that_implies_many_directories_is_taken(engine: Docker, daemon: Daemon) -> None:
    """What an unpacker has to tell of it is longer than a message: it still can, for all that it may not."""
    files: dict[str, bytes | Member] = {f"{number:0120}/x": b"" for number in range(2000)}
    top = archives.pack(files)
    status, said = load(daemon, archives.docker_files([top], ["evil:latest"]))
    assert status == 200, said


def test_a_device_that_is_copied_in_is_not_opened(
    engine: Docker, daemon: Daemon, ids: tuple[str, ...]
) -> None:
    """``cp`` of a node of the host's disk, and of its memory."""
    engine("run", "-d", *ids, "--name", "box", "busybox", "sleep", "1000")
    disk = os.stat("/").st_dev
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, kind, major, minor in (
            ("disk", tarfile.BLKTYPE, os.major(disk), os.minor(disk)),
            ("mem", tarfile.CHRTYPE, 1, 1),
            ("kmsg", tarfile.CHRTYPE, 1, 11),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.devmajor, member.devminor, member.mode = kind, major, minor, 0o666
            archive.addfile(member)
    ask(daemon.socket, "PUT", "/containers/box/archive?path=/tmp", made.getvalue())
    look = "for n in disk mem kmsg; do (exec 3</tmp/$n) 2>/dev/null && echo OPENED $n; done; true"
    assert engine("exec", "box", "sh", "-c", look).stdout == ""
    engine("stop", "-t", "0", "box")
    engine("start", "box")
    assert engine("exec", "box", "sh", "-c", look).stdout == ""


def test_a_context_that_unpacks_to_much_is_a_stream(engine: Docker, daemon: Daemon) -> None:
    """64 MB of zeros in 64 kB: they are written as they come, never held, and gone with the build."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, size in (("Dockerfile", 0), ("zeros", 64 << 20)):
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(bytes(size)))
    pid = daemon_id(daemon)
    before = peak(pid)
    status, _ = ask(daemon.socket, "POST", "/build", gzip.compress(made.getvalue(), 1))
    assert status == 400  # the Dockerfile is empty
    assert peak(pid) - before < 32 << 10
    until(lambda: os.listdir(f"{daemon.root}/data/tmp") == [])


def until(found: Callable[[], bool]) -> None:
    """Wait for something that is soon so."""
    for _ in range(3000):
        if found():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it is not so")


def daemon_id(daemon: Daemon) -> int:
    """The daemon's process."""
    return int(Path(f"{daemon.root}/run/sampan.pid").read_text())


def peak(pid: int) -> int:
    """The most memory that a process has had, in kB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM"))
