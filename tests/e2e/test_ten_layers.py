"""An image of ten layers, pushed by each client and pulled by each: what arrives is compared file by file.

The tree is small and has every kind of file; SAMPAN_TEN_LAYERS=/path takes another, for example that of a
whole Debian. Law under test: contents, owners, modes, times to the nanosecond, links and extended attributes
are those that GNU tar gives the same layers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import docker
import pytest

from sampan.spec.digest import of as digest_of
from tests.e2e.conftest import PROGRAMS
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not shutil.which("docker-registry") or not shutil.which("skopeo"), reason="needs docker-registry"
    ),
]

LAYERS = 10
TAG = "ten:layers"
TREE = os.environ.get("SAMPAN_TEN_LAYERS", "")
SECONDS = 600 if TREE else 60
CLIENTS = ("docker", "sampan", "docker-py", "skopeo")
_XATTRS = ("--xattrs", "--xattrs-include=*")
# v2 capability, permitted: CAP_NET_BIND_SERVICE, effective.
_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")

Looks: TypeAlias = "dict[str, tuple[object, ...]]"


def plant(tree: Path) -> None:
    """Ten directories with a file of each kind in each."""
    for number in range(LAYERS):
        place = tree / f"d{number}"
        (place / "deep/er").mkdir(parents=True)
        (place / "plain").write_bytes(bytes((number,)) * (number * 70_000))
        (place / "naïve ☃").write_text(str(number))
        os.link(place / "plain", place / "deep/linked")
        os.symlink("../plain", place / "deep/er/symbolic")
        (place / "program").write_bytes(b"#!\n")
        os.chown(place / "program", 1000 + number, (1 << 32) - 2 - number)
        os.chmod(place / "program", 0o6755)
        os.setxattr(place / "program", "security.capability", _CAPABILITY)
        os.setxattr(place / "plain", "user.number", b"\0" + str(number).encode())
        os.setxattr(place / "deep", "user.directory", b"d")
        with (place / "sparse").open("wb") as file:
            file.seek(1 << 20)
            file.write(b"end")
        os.mknod(place / "device", stat.S_IFCHR | 0o640, os.makedev(1, 3 + number))
        os.mkfifo(place / "fifo", 0o600)
        (place / "deep/er").chmod(0o1777)
        os.utime(place / "sparse", ns=(1, -1_000_000_001 * number))
        os.utime(place / "deep", ns=(1, 1_234_567_890_123_456_789))


def cut(tree: Path, place: Path) -> list[str]:
    """The tree as ten tars in ``place``; their names."""
    paths = sorted(
        os.path.relpath(os.path.join(above, name), tree)
        for above, directories, files in os.walk(tree)
        for name in directories + files
    )
    share = -(-len(paths) // LAYERS)
    names = []
    for number in range(LAYERS):
        names.append(f"layer{number}.tar")
        command = ["tar", "-C", str(tree), "--format=posix", *_XATTRS, "--no-recursion", "--numeric-owner"]
        subprocess.run(
            [*command, "--sparse", "--null", "-T", "-", "-cf", str(place / names[-1])],
            input="\0".join(paths[number * share : (number + 1) * share]).encode(),
            check=True,
        )
    return names


def looks(root: Path, only: list[str] | None = None) -> Looks:
    """What can be seen of each file below ``root``; of directories ``only`` those that a layer describes."""
    found: Looks = {}
    names: dict[int, str] = {}
    for above, directories, files in os.walk(root):
        for name in sorted(directories + files):
            path = os.path.join(above, name)
            key = os.path.relpath(path, root)
            there = os.lstat(path)
            directory = stat.S_ISDIR(there.st_mode)
            if directory and only is not None and key not in only:
                continue
            content = ""
            if stat.S_ISREG(there.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            elif stat.S_ISLNK(there.st_mode):
                content = os.readlink(path)
            attributes = {
                attribute: os.getxattr(path, attribute, follow_symlinks=False)
                for attribute in os.listxattr(path, follow_symlinks=False)
            }
            found[key] = (
                *(there.st_mode, there.st_uid, there.st_gid, there.st_mtime_ns, there.st_rdev),
                *(content, 0 if directory else there.st_size, 0 if directory else there.st_nlink),
                *(attributes, names.setdefault(there.st_ino, key)),
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The archive of it, and what its layers look like, bottom first."""

    archive: Path
    layers: list[Looks]


def extracted(archives_: list[Path], place: Path) -> list[Looks]:
    """What GNU tar makes of layers."""
    found = []
    for number, archive in enumerate(archives_):
        root = place / str(number)
        root.mkdir(parents=True)
        # Without it a directory gets its time before the last of its files is there.
        options = [*_XATTRS, "--numeric-owner", "--delay-directory-restore"]
        subprocess.run(["tar", "-C", str(root), *options, "-xpf", str(archive)], check=True)
        listing = ["tar", "--quoting-style=literal", "-tf", str(archive)]
        listed = subprocess.run(listing, check=True, capture_output=True).stdout
        described = [os.fsdecode(line).rstrip("/") for line in listed.splitlines()]
        found.append(looks(root, described))
        shutil.rmtree(root)
    return found


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Image:
    place = tmp_path_factory.mktemp("ten")
    tree = Path(TREE) if TREE else place / "tree"
    if not TREE:
        plant(tree)
    names = cut(tree, place)
    digests = [digest_of((place / name).read_bytes()) for name in names]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": digests},
        "history": [{"created_by": name} for name in names],
    }
    (place / "config.json").write_text(json.dumps(config))
    listing = [{"Config": "config.json", "RepoTags": [TAG], "Layers": names}]
    (place / "manifest.json").write_text(json.dumps(listing))
    members = ["manifest.json", "config.json", *names]
    subprocess.run(["tar", "-C", str(place), "-cf", str(place / "ten.tar"), *members], check=True)
    layers = extracted([place / name for name in names], place / "extracted")
    return Image(archive=place / "ten.tar", layers=layers)


@pytest.fixture
def run(environment: dict[str, str]) -> Callable[..., None]:
    def run(*command: str) -> None:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
        )
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="module")
def api(daemon: Daemon) -> Iterator[docker.DockerClient]:
    connected = docker.DockerClient(base_url=daemon.host, timeout=SECONDS)
    yield connected
    connected.close()


def remove(daemon: Daemon, *names: str) -> None:
    for name in names:
        ask(daemon.socket, "DELETE", f"/images/{name}?force=1")


def here(daemon: Daemon, name: str) -> list[Looks]:
    """What the layers of an image of the engine look like, bottom first."""
    status, said = ask(daemon.socket, "GET", f"/images/{name}/json")
    assert status == 200, said
    data = json.loads(said)["GraphDriver"]["Data"]
    lowers = data["LowerDir"].split(":")[::-1]
    return [looks(Path(place)) for place in (*lowers, data["UpperDir"])]


def elsewhere(place: Path) -> list[Looks]:
    """The same of an image that skopeo has put into a directory."""
    layers = json.loads((place / "manifest.json").read_text())["layers"]
    blobs = [place / layer["digest"].partition(":")[2] for layer in layers]
    return extracted(blobs, place / "extracted")


def same(found: list[Looks], wanted: list[Looks]) -> None:
    assert len(found) == len(wanted) == LAYERS
    for number, (layer, other) in enumerate(zip(found, wanted, strict=True)):
        for key, value in other.items():
            assert layer.get(key) == value, f"layer {number}: {key}"
        assert all(stat.S_ISDIR(int(str(layer[key][0]))) for key in layer.keys() - other.keys())


@pytest.mark.parametrize("pushes", CLIENTS)
def test_what_one_pushes_all_pull(
    daemon: Daemon,
    registry: str,
    api: docker.DockerClient,
    run: Callable[..., None],
    ten: Image,
    tmp_path: Path,
    pushes: str,
) -> None:
    name = f"{registry}/ten/{pushes}:x"
    if pushes == "skopeo":
        run("skopeo", "copy", "--dest-tls-verify=false", f"docker-archive:{ten.archive}", f"docker://{name}")
    else:
        run("docker", "load", "-i", str(ten.archive))
        run("docker", "tag", TAG, name)
        if pushes == "docker-py":
            assert '"error"' not in api.images.push(name)
        else:
            run(*PROGRAMS[pushes], "push", name)
        same(here(daemon, name), ten.layers)
        remove(daemon, TAG, name)
    for pulls in CLIENTS:
        if pulls == "skopeo":
            place = tmp_path / "pulled"
            run("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{place}")
            same(elsewhere(place), ten.layers)
            continue
        if pulls == "docker-py":
            assert api.images.pull(name).tags == [name]
        else:
            run(*PROGRAMS[pulls], "pull", name)
        same(here(daemon, name), ten.layers)
        remove(daemon, name)
