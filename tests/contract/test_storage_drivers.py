"""What every storage driver does alike: the same images, the same changes, the same layers made of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument
from sampan.images.checking import Checker
from sampan.images.drivers import choose
from sampan.images.packing import packed, stack
from sampan.linux import mount
from sampan.sandbox import places
from sampan.sandbox.differences import differences
from sampan.sandbox.hostmounts import root_mount
from sampan.sandbox.messages import RootFilesystem
from sampan.sandbox.trees import Trees
from sampan.wire.tar import DIRECTORY, LINK, SYMLINK, Member
from tests import archives
from tests.root.images.stores import Store, opened

pytestmark = pytest.mark.root


def _pack(*members: Member, **files: bytes) -> bytes:
    return archives.pack({**{str(number): member for number, member in enumerate(members)}, **files})


LOWEST = _pack(
    Member(name=b"etc/", kind=DIRECTORY, mode=0o755, mtime=10**18),
    Member(name=b"etc/hosts", mode=0o600),
    Member(name=b"kept", mode=0o640, uid=7, gid=8, mtime=1_500_000_000 * 10**9),
    Member(name=b"gone", mode=0o644),
    Member(name=b"link", kind=SYMLINK, link=b"kept"),
    Member(name=b"other", kind=LINK, link=b"kept"),
    Member(name=b"shut/", kind=DIRECTORY, mode=0o700, mtime=10**18),
    **{"shut/old": b"old", "turned/inside": b"1", "deep/a/b/c": b"deep"},
)
MIDDLE = _pack(
    **{".wh.gone": b"", "shut/.wh..wh..opq": b"", "shut/new": b"new", ".wh.turned": b"", "deep/a/b/d": b"d"}
)
TOP = _pack(**{"turned": b"a file", "deep/a/.wh.b": b"", "deep/a/e": b"e", "last": b"x" * 5000})
IMAGE = archives.pack(archives.docker_files([LOWEST, MIDDLE, TOP], ["a:1"]))

Scene = Callable[[Store], Awaitable[None]]


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mounted file system of that kind."""
    place = tmp_path_factory.mktemp("btrfs")
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("btrfs-progs are not installed")
    with open(place / "image", "wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", place / "image"], check=True, capture_output=True)
    (place / "root").mkdir()
    if subprocess.run(
        ["mount", "-o", "loop", place / "image", place / "root"], capture_output=True
    ).returncode:
        pytest.skip("this host cannot mount btrfs")
    try:
        yield place / "root"
    finally:
        subprocess.run(["umount", place / "root"], check=True)


@pytest.fixture(params=["overlay2", "vfs", "btrfs", "fuse-overlayfs"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(driver: str, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where a store of the driver can be; skips where the host does not offer it."""
    place = tmp_path
    if driver == "btrfs":
        place = request.getfixturevalue("btrfs") / tmp_path.name
    place = place / "data"
    place.mkdir(parents=True)
    try:
        choose(str(place), driver)
    except InvalidArgument as error:
        pytest.skip(str(error))
    return place


def play(root: Path, driver: str, *scenes: Scene) -> None:
    """Each scene in an engine of its own life."""

    async def one(scene: Scene) -> None:
        async with opened(root, driver=driver) as store:
            await scene(store)

    for scene in scenes:
        asyncio.run(one(scene))


def inside(root: RootFilesystem, work: Callable[[], None]) -> None:
    """Do something in a container's root, in a process of its own."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.umask(0)
            fd = root_mount(root).open(None)
            os.fchdir(fd)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def listed(directory: str = ".") -> dict[str, tuple[object, ...]]:
    """What a tree holds, with the looks of everything."""
    found: dict[str, tuple[object, ...]] = {}
    for top, folders, names in os.walk(directory):
        for name in (*folders, *names):
            path = os.path.join(top, name)
            there = os.lstat(path)
            data: object = None
            if stat.S_ISREG(there.st_mode):
                data = Path(path).read_bytes()
            elif stat.S_ISLNK(there.st_mode):
                data = os.readlink(path)
            looks = (there.st_mode, there.st_uid, there.st_gid, there.st_mtime_ns // 10**9, data)
            found[path.removeprefix(f"{directory}/")] = looks
    return found


def seen(root: RootFilesystem, tmp: Path) -> dict[str, tuple[object, ...]]:
    """What a container sees, but for mount points."""
    note = tmp / "seen"
    inside(root, lambda: (note.write_text(repr(listed())), None)[1])
    points = ("dev", "proc", "sys", "etc/hostname", "etc/resolv.conf", "etc/mtab", ".dockerenv")
    return {path: looks for path, looks in eval(note.read_text()).items() if path not in points}


def changes(root: RootFilesystem) -> list[str]:
    """As the visitor of ``diff`` tells them."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            if root.kind:
                upper, below, _ = places.open_whole(root)
            else:
                upper, lower = places.open_both(root)
                below = Trees((lower,))
            found = differences(upper, below, whole=root.kind == "tree")
            os.write(write, "\n".join(f"{'CAD'[kind]} {os.fsdecode(path)}" for kind, path in found).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    os.waitpid(child, 0)
    return text.split("\n") if text else []


def change() -> None:
    """What a program does to its root: written, set back in time, replaced, removed, made."""
    kept = os.stat("kept")
    Path("kept").write_bytes(b"!" * kept.st_size + b"more")
    last = os.stat("last")
    Path("last").write_bytes(b"y" * last.st_size)
    os.utime("last", ns=(last.st_atime_ns, last.st_mtime_ns))
    os.unlink("turned")
    os.mkdir("turned")
    Path("turned/again").write_bytes(b"again")
    shutil.rmtree("shut")
    os.mkdir("made", 0o750)
    Path("made/one").write_bytes(b"one")
    os.link("made/one", "made/two")
    os.symlink("one", "made/three")
    os.chown("made/one", 12, 13)


def test_an_image_is_seen_whole(root: Path, driver: str, tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(IMAGE)
        found = seen(await store.snapshots.prepare("one", store.catalog.find("a:1")), tmp_path)
        assert sorted(found) == [
            "deep", "deep/a", "deep/a/e", "etc", "etc/hosts", "kept", "last", "link", "other", "shut",
            "shut/new", "turned",
        ]  # fmt: skip
        assert found["kept"] == (stat.S_IFREG | 0o640, 7, 8, 1_500_000_000, b"")
        assert found["etc"][:4] == (stat.S_IFDIR | 0o755, 0, 0, 10**9)
        assert found["turned"][-1] == b"a file"
        assert found["link"][-1] == "kept"
        assert changes(store.snapshots.mounts("one")) == []

    play(root, driver, scene)


def test_what_was_changed_is_told_and_becomes_a_layer(root: Path, driver: str, tmp_path: Path) -> None:
    async def run(store: Store) -> None:
        await store.load(IMAGE)
        image = store.catalog.find("a:1")
        snapshot = await store.snapshots.prepare("one", image)
        inside(snapshot, change)
        expected = seen(snapshot, tmp_path)
        told = changes(snapshot)
        # With overlay a file that is written to is no other's link any more.
        assert [one for one in told if one not in ("C /last", "C /other")] == [
            "C /kept", "A /made", "A /made/one", "A /made/three", "A /made/two", "C /turned",
            "A /turned/again", "D /shut",
        ]  # fmt: skip
        usage = (await store.snapshots.usage(["one"]))["one"]
        assert usage.apparent >= 4 + 5 + 3
        assert usage.occupied > 0
        with store.layers.holding() as hold:
            async with packed(store.catalog.blobs, snapshot) as layer:
                top = await stack(store.layers, hold, image.chain_id, layer)
            (view, *more) = await store.layers.see(top)
            assert bool(more) == (driver == "overlay2")
            made = store.catalog.find("a:1")
            over = type(made)(
                **{name: getattr(made, name) for name in made.__struct_fields__}
                | {"chain": (*made.chain, top)}
            )
            found = seen(await store.snapshots.prepare("two", over), tmp_path)
            # A removed directory's parent has another time; whole seconds are what an archive has.
            assert {path: looks[-1] for path, looks in found.items()} == {
                path: looks[-1] for path, looks in expected.items()
            }
            assert found["made/one"][:3] == expected["made/one"][:3]
            assert view
            await store.snapshots.remove("two")

    async def later(store: Store) -> None:
        assert store.snapshots.keys() == ("one",)
        assert "D /shut" in changes(store.snapshots.mounts("one"))
        await store.snapshots.remove("one")
        assert store.snapshots.keys() == ()
        assert seen(await store.snapshots.prepare("new", store.catalog.find("a:1")), tmp_path)["last"][
            -1
        ] == (b"x" * 5000)

    play(root, driver, run, later)


def test_containers_of_one_image_do_not_meet(root: Path, driver: str, tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(IMAGE)
        image = store.catalog.find("a:1")
        one = await store.snapshots.prepare("one", image)
        two = await store.snapshots.prepare("two", image)
        before = seen(two, tmp_path)
        inside(one, change)
        assert seen(two, tmp_path) == before
        assert changes(two) == []

    play(root, driver, scene)


def test_a_store_is_found_whole_and_removed_whole(root: Path, driver: str) -> None:
    async def scene(store: Store) -> None:
        await store.load(IMAGE)
        await store.snapshots.prepare("one", store.catalog.find("a:1"))
        report = await Checker(store.catalog, store.snapshots, store.database).check(mend=False)
        assert report.problems == []
        assert report.layers == 3
        await store.snapshots.remove("one")
        await store.images.remove("a:1", force=False, prune=True)
        await store.settle()
        assert store.files() == []

    play(root, driver, scene)


def test_another_driver_is_refused(root: Path, driver: str) -> None:
    async def scene(store: Store) -> None:
        await store.load(IMAGE)

    play(root, driver, scene)
    other = "vfs" if driver != "vfs" else "overlay2"
    with pytest.raises(InvalidArgument, match=f"holds images and containers of the storage driver {driver}"):
        choose(str(root), other)
    assert choose(str(root)).name == driver
    with suppress(FileNotFoundError):
        shutil.rmtree(root / "layers")
    assert choose(str(root), "vfs").name == "vfs"
    assert choose(str(root)).name == "vfs"


def test_an_unknown_driver_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        choose(str(tmp_path), "nonesuch")
    # dockerd 20.10 says the same.
    words = "failed to start daemon: error initializing graphdriver: driver not supported"
    assert str(caught.value) == words


def test_where_overlay_cannot_be_another_driver_is_chosen(tmp_path: Path) -> None:
    """An overlay file system takes no other one's upper directory."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    merged = tmp_path / "merged"
    mount.mount("overlay", str(merged), "overlay", 0, options)
    try:
        chosen = choose(str(merged)).name
        assert chosen in ("vfs", "fuse-overlayfs")

        async def scene(store: Store) -> None:
            await store.load(IMAGE)
            root = await store.snapshots.prepare("one", store.catalog.find("a:1"))
            inside(root, change)
            assert "D /shut" in changes(root)

        play(merged / "data", "vfs", scene)
    finally:
        mount.unmount(str(merged))
