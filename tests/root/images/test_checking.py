"""A check finds what was damaged, and mends what can be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sampan.images.checking import Checker, Report
from sampan.spec import digest as digests
from sampan.wire import tar
from sampan.wire.tar import Member
from tests import archives
from tests.root.images.stores import Store, opened

pytestmark = pytest.mark.root

LAYERS = (
    archives.pack(
        {
            "etc": Member(name=b"etc", kind=tar.DIRECTORY, mode=0o755, uid=7, mtime=5),
            "etc/one": b"1",
            "hard": Member(name=b"hard", kind=tar.LINK, link=b"etc/one"),
            "soft": Member(name=b"soft", kind=tar.SYMLINK, link=b"etc/one"),
        }
    ),
    archives.layer(**{"implied/below/two": b"22"}),
)
ARCHIVE = archives.pack(archives.docker_files(LAYERS, ["a"]))


async def look(store: Store, *, mend: bool = False) -> Report:
    return await Checker(store.catalog, store.snapshots, store.database).check(mend=mend)


async def found(store: Store, *, mend: bool = False) -> list[tuple[str, str, bool]]:
    return [(one.kind, one.text, one.mended) for one in (await look(store, mend=mend)).problems]


def play(root: Path, scene: Callable[[Store], Awaitable[None]]) -> None:
    async def act() -> None:
        async with opened(root) as store:
            await store.load(ARCHIVE)
            await scene(store)

    asyncio.run(act())


def test_what_is_whole_has_no_problems(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        image = store.catalog.find("a")
        await store.snapshots.prepare("c", image)
        report = await look(store)
        assert report.problems == []
        assert (report.images, report.layers, report.blobs) == (1, 2, 3)
        assert report.size == sum(map(len, LAYERS)) + len(image.config.raw)

    play(tmp_path / "data", scene)


def _content(tree: Path) -> None:
    (tree / "etc/one").write_bytes(b"2")


def _mode(tree: Path) -> None:
    (tree / "etc").chmod(0o700)


def _gone(tree: Path) -> None:
    (tree / "soft").unlink()


def _more(tree: Path) -> None:
    (tree / "more").touch()


def _attribute(tree: Path) -> None:
    os.setxattr(tree / "etc/one", "user.x", b"y")


def _link(tree: Path) -> None:
    times = (tree / "soft").lstat()
    (tree / "soft").unlink()
    (tree / "soft").symlink_to("etc/two")
    os.utime(tree / "soft", ns=(times.st_atime_ns, times.st_mtime_ns), follow_symlinks=False)


@pytest.mark.parametrize("damage", [_content, _mode, _gone, _more, _attribute, _link])
def test_a_damaged_layer_is_unpacked_again(damage: Callable[[Path], None], tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        image = store.catalog.find("a")
        tree = store.tree(image)
        looks = os.stat(tree)
        damage(tree)
        os.utime(tree, ns=(looks.st_atime_ns, looks.st_mtime_ns))
        ((kind, _text, mended),) = await found(store)
        assert (kind, mended) == ("layer", False)
        await store.snapshots.prepare("c", image)
        assert [one[2] for one in await found(store, mend=True)] == [False]
        await store.snapshots.remove("c")
        assert [one[2] for one in await found(store, mend=True)] == [True]
        assert await found(store) == []
        assert (store.tree(image) / "etc/one").read_bytes() == b"1"
        await store.settle()

    play(tmp_path / "data", scene)

    async def later() -> None:
        async with opened(tmp_path / "data") as store:
            assert store.lost == []
            assert await found(store) == []

    asyncio.run(later())


def test_a_missing_directory_is_made_again(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        tree = store.tree(store.catalog.find("a"), 1)
        tree.rename(tmp_path / "away")
        assert await found(store, mend=True) == [("layer", "its directory is missing", True)]
        assert await found(store) == []

    play(tmp_path / "data", scene)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_blob_comes_back_with_the_next_load(damage: str, tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        path = Path(store.catalog.blobs.path(digests.of(LAYERS[0])))
        if damage == "gone":
            path.unlink()
        elif damage == "cut":
            os.truncate(path, 5)
        else:
            path.write_bytes(LAYERS[0][:-1] + b"x")
        report = await look(store, mend=True)
        (problem,) = report.problems
        assert (problem.kind, problem.mended) == ("blob", False)
        assert problem.remedy == "pull or load a:latest again"
        assert not path.exists()
        await store.load(ARCHIVE)
        assert await found(store) == []

    play(tmp_path / "data", scene)


def test_a_configuration_is_written_anew(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        path = Path(store.catalog.blobs.path(store.catalog.find("a").id))
        path.write_bytes(b"{}")
        assert [one[2] for one in await found(store, mend=True)] == [True]
        assert await found(store) == []

    play(tmp_path / "data", scene)


def test_what_nothing_needs_goes(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        before = store.files()
        (store.root / "layers/77/fs").mkdir(parents=True)
        store.catalog.blobs.put(b"nobody's")
        assert {one[:2] for one in await found(store)} == {
            ("blob", "nothing needs it"),
            ("layer", "nothing names it"),
        }
        await found(store, mend=True)
        await store.settle()
        assert store.files() == before
        assert await found(store) == []

    play(tmp_path / "data", scene)


def test_a_check_beside_loads_and_removals_sees_no_problems(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        async def churn() -> None:
            for number in range(4):
                files = archives.docker_files([*LAYERS, archives.layer(new=b"%d" % number)], ["b"])
                await store.load(archives.pack(files))
                await store.images.remove("b", force=True)

        churning = asyncio.create_task(churn())
        while not churning.done():
            assert await found(store, mend=True) == []
        await churning
        await store.settle()
        assert await found(store) == []

    play(tmp_path / "data", scene)


def test_a_check_takes_nothing_away_before_its_row_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(store: Store) -> None:
        before, database = store.files(), store.catalog._database
        begun, may_write = asyncio.Event(), asyncio.Event()

        async def write(*arguments: Any, **options: Any) -> Any:
            begun.set()
            await may_write.wait()
            return await database.write(*arguments, **options)

        slow = SimpleNamespace(read=database.read, write=write)
        with monkeypatch.context() as patch:
            patch.setattr(store.catalog.garbage, "_database", slow)
            removing = asyncio.create_task(store.catalog.remove(store.catalog.find("a")))
            await begun.wait()
            assert await found(store, mend=True) == []
            assert store.files() == before
            may_write.set()
            await removing
        await store.settle()
        assert (store.files(), await found(store)) == ([], [])

    play(tmp_path / "data", scene)
