"""Archives of layers that are dropped, and made again byte for byte."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sampan.images import recipes
from sampan.images.checking import Checker
from sampan.images.space import Spaces
from sampan.spec import digest as digests
from sampan.wire import tar
from sampan.wire.tar import Member
from tests import archives
from tests.root.images.stores import Store, opened, read

pytestmark = pytest.mark.root

CONTENTS = os.urandom(100_000)
LAYER = archives.pack(
    {
        "etc": Member(name=b"etc", kind=tar.DIRECTORY, mode=0o755, uid=7, mtime=5),
        "etc/one": CONTENTS,
        "hard": Member(name=b"hard", kind=tar.LINK, link=b"etc/one"),
        "soft": Member(name=b"soft", kind=tar.SYMLINK, link=b"etc/one"),
    }
)
LAYERS = (LAYER, LAYER + bytes(5120))
"""The same files with other padding."""
ARCHIVE = archives.pack(archives.docker_files(LAYERS, ["a"]))
ZIPPED = archives.pack(archives.oci_files(LAYERS, "docker.io/library/a:latest"))


def play(root: Path, scene: Callable[[Store], Awaitable[None]], *, drop: bool = True) -> None:
    async def act() -> None:
        async with opened(root, drop=drop) as store:
            await scene(store)

    asyncio.run(act())


async def quiet(store: Store) -> None:
    """Wait until nothing goes on in the background."""
    while store.catalog.garbage._background:
        await asyncio.gather(*store.catalog.garbage._background)
        await asyncio.sleep(0)
    await store.layers.drain()


async def dropped(store: Store, archive: bytes = ARCHIVE) -> None:
    await store.load(archive)
    await quiet(store)


async def saved(store: Store, name: str = "a") -> bytes:
    data = b"".join([read(piece) async for piece in store.images.save([name])])
    await quiet(store)
    return data


async def problems(store: Store, *, mend: bool = False) -> list[tuple[str, str]]:
    report = await Checker(store.catalog, store.snapshots, store.database).check(mend=mend)
    await quiet(store)
    return [(one.kind, one.text) for one in report.problems]


def blobs(store: Store) -> list[str]:
    return [name for name in store.files() if not name.startswith("layer")]


@pytest.mark.parametrize("archive", [ARCHIVE, ZIPPED], ids=["plain", "zipped"])
def test_dropped_archives_are_saved_as_they_were_and_leave_nothing(tmp_path: Path, archive: bytes) -> None:
    async def scene(store: Store) -> None:
        await dropped(store, archive)
        image = store.catalog.find("a")
        only = sorted(f"blob {digests.hex_of(one)}" for one in (image.id, image.manifest) if one)
        assert blobs(store) == only
        with tarfile.open(fileobj=io.BytesIO(await saved(store))) as found:
            for diff_id in image.config.diff_ids:
                file = found.extractfile(f"blobs/sha256/{digests.hex_of(diff_id)}")
                assert file is not None
                assert digests.of(file.read()) == diff_id
        assert blobs(store) == only
        assert await problems(store) == []
        await dropped(store, archive)
        assert blobs(store) == only

    play(tmp_path / "data", scene)


def test_a_saved_image_is_loaded_elsewhere_as_the_same(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        await dropped(store)
        archive, image = await saved(store), store.catalog.find("a")

        async def other(store: Store) -> None:
            await store.load(archive)
            assert store.catalog.find("a").id == image.id
            assert await problems(store) == []

        async with opened(tmp_path / "other") as elsewhere:
            await other(elsewhere)

    play(tmp_path / "data", scene)


def test_the_next_daemon_makes_them_again_whatever_its_setting(tmp_path: Path) -> None:
    play(tmp_path / "data", lambda store: dropped(store, ZIPPED))

    async def scene(store: Store) -> None:
        await quiet(store)
        assert store.lost == []
        assert await problems(store) == []
        before = blobs(store)
        with store.layers.holding() as hold:
            (one, _) = (store.layers.dropping.shown(layer, hold) for layer in store.layers)
            await store.layers.dropping.bring(one.blob)
            assert store.catalog.blobs.has(one.blob)
        await quiet(store)
        assert blobs(store) == before
        assert await saved(store)
        await store.load(ZIPPED)
        await quiet(store)
        image = store.catalog.find("a")
        assert all(store.catalog.blobs.has(blob.digest) for blob in image.blobs)

    play(tmp_path / "data", scene, drop=False)


def test_archives_that_only_a_manifest_names_go_too(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        await dropped(store, ARCHIVE)
        await dropped(store, ZIPPED)
        image = store.catalog.find("a")
        assert image.manifest is not None
        assert len(blobs(store)) == 2
        assert await problems(store) == []
        with store.layers.holding() as hold:
            assert store.layers.dropping.available(image, hold).manifest is None

    play(tmp_path / "data", scene)


def test_without_the_setting_everything_stays(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        await dropped(store)
        assert len(blobs(store)) == 3
        assert not list(store.root.glob("layers/*/recipe"))

    play(tmp_path / "data", scene, drop=False)


def test_a_pinned_archive_stays_until_it_is_let_go(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        with store.layers.holding() as hold:
            hold.pin(digests.of(LAYER))
            await dropped(store)
            assert store.catalog.blobs.has(digests.of(LAYER))
        await quiet(store)
        assert not store.catalog.blobs.has(digests.of(LAYER))

    play(tmp_path / "data", scene)


def test_an_archive_that_its_files_do_not_say_stays(tmp_path: Path) -> None:
    # The first of two members with one name is nowhere in the tree.
    odd = archives.pack({"etc/one": CONTENTS})[:-1024] + archives.pack({"etc/one": os.urandom(50_000)})

    async def scene(store: Store) -> None:
        await store.load(archives.pack(archives.docker_files((odd,), ["a"])))
        await quiet(store)
        assert store.catalog.blobs.has(digests.of(odd))
        (layer,) = store.layers
        assert os.stat(store.layers.dropping.recipe(layer)).st_size == 0
        assert await problems(store) == []

    play(tmp_path / "data", scene)


def test_a_layer_that_cannot_be_made_again_is_found_and_mended_by_loading(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        await dropped(store)
        (store.tree(store.catalog.find("a")) / "etc/one").write_bytes(b"other")
        ((kind, text),) = await problems(store)
        assert kind == "layer"
        assert text.startswith("its archive was dropped and cannot be made again")
        await problems(store, mend=True)
        await store.load(ARCHIVE)
        await problems(store, mend=True)
        assert await problems(store) == []

    play(tmp_path / "data", scene)


def test_removing_while_it_is_saved_breaks_nothing(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        await dropped(store)
        whole = await saved(store)
        pieces = store.images.save(["a"])
        first = read(await anext(pieces))
        await store.catalog.remove(store.catalog.find("a"))
        rest = [read(piece) async for piece in pieces]
        assert first + b"".join(rest) == whole
        await quiet(store)
        assert store.files() == []

    play(tmp_path / "data", scene)


def test_disk_use_counts_recipes(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        await dropped(store)
        found = await Spaces(store.catalog).measure()
        (image_id,) = found.images
        recipe = sum(path.stat().st_blocks * 512 for path in store.root.glob("layers/*/recipe"))
        files = sum(found.parts[f"layer {chain_id}"] for chain_id in store.catalog.find("a").chain)
        assert recipe > 0
        assert files > recipe
        assert found.size(image_id) == files + found.parts[image_id]

    play(tmp_path / "data", scene)


MOMENTS = ("write", "rename", "retire")


@pytest.mark.parametrize("moment", MOMENTS)
def test_dying_at_any_moment_loses_nothing(tmp_path: Path, moment: str) -> None:
    if (pid := os.fork()) == 0:
        try:
            _die_at(moment)
            play(tmp_path / "data", dropped)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9

    async def scene(store: Store) -> None:
        await quiet(store)
        assert store.lost == []
        assert await problems(store) == []
        assert len(blobs(store)) == 1
        assert not list(store.root.glob("layers/*/recipe.new"))
        assert await saved(store)

    play(tmp_path / "data", scene)


def _die_at(moment: str) -> None:
    """Have this process end without a word when an archive is being dropped."""

    def die(*_: object) -> None:
        os._exit(9)

    if moment == "write":
        recipes.make = die  # type: ignore[assignment]
    elif moment == "rename":
        rename = os.rename

        def renamed(source: str, target: str) -> None:
            rename(source, target)
            if str(target).endswith("/recipe"):
                die()

        os.rename = renamed  # type: ignore[assignment]
    else:
        from sampan.images.blobs import BlobStore

        retire = BlobStore.retire

        def retired(self: BlobStore, digest: str) -> None:
            if digest == digests.of(LAYER):
                retire(self, digest)
                die()

        BlobStore.retire = retired  # type: ignore[method-assign]
