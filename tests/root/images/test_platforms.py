"""Several platforms of one image: what is kept, what is shown, and what goes with what, on a real store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.engine.lookups import ImageUse
from sampan.engine.model import Filters
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.images.catalog import NewImage
from sampan.images.checking import Checker
from sampan.images.model import Image
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec import platform as platforms
from sampan.spec import reference as references
from sampan.state import Database
from sampan.state.migrations import IMAGE_INDEXES, MIGRATIONS
from tests import archives
from tests.e2e import platforms as several
from tests.root.images.stores import Store, opened, pieces, read

pytestmark = pytest.mark.root

Scene = Callable[[Store], Awaitable[None]]

HOST = f"linux/{platforms.own_architecture()}"
OTHER = "linux/arm64/v8" if HOST == "linux/amd64" else "linux/amd64"
ARM = ("linux", "arm", "v7")
MADE = several.make({"shared": b"s"})
NEXT = several.make({"shared": b"s"}, seed=" again")


def layout(made: several.Made, name: str, only: tuple[str, ...] = several.PLATFORMS) -> bytes:
    """An OCI layout of an index, in which some platforms' images are."""
    kept = {made.digests[one]: made.manifests[made.digests[one]][1] for one in only}
    below = {
        one["digest"]
        for raw in kept.values()
        for one in (json.loads(raw)["config"], *json.loads(raw)["layers"])
    }
    blobs = {digests.of(made.index): made.index, **kept}
    blobs |= {digest: data for digest, data in made.blobs.items() if digest in below}
    notes = {"annotations": {"io.containerd.image.name": name}} if name else {}
    entry = archives.descriptor(made.index, made.kind, **notes)
    files: dict[str, Any] = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        **{f"blobs/sha256/{digests.hex_of(digest)}": data for digest, data in blobs.items()},
    }
    return archives.pack(files)


def play(root: Path, *scenes: Scene) -> None:
    """Each scene in an engine of its own life on the same store."""

    async def act(scene: Scene) -> None:
        async with opened(root) as store:
            await scene(store)
            await store.settle()

    for scene in scenes:
        asyncio.run(act(scene))


def ids(store: Store) -> set[str]:
    return {image.id for image in store.catalog}


def listed(store: Store, **options: Any) -> list[tuple[str, list[str]]]:
    found = store.images.list(**options)
    return [(one.image.id, [name.familiar for name in one.names]) for one in found]


async def on(store: Store, text: str, *wanted: str) -> Image:
    found = await store.images.inspect(text, platforms.parse(wanted[0]) if wanted else None)
    return found.image


async def saved(store: Store, *names: str, wanted: tuple[Any, ...] = ()) -> bytes:
    return b"".join([read(piece) async for piece in store.images.save(names, wanted)])


async def sound(store: Store) -> None:
    await store.settle()
    report = await Checker(store.catalog, store.snapshots, store.database).check(mend=False)
    assert report.problems == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_all_platforms_of_an_archive_are_kept_and_shown_as_one(root: Path) -> None:
    async def load(store: Store) -> None:
        assert await store.load(layout(MADE, "docker.io/library/a:1")) == ["Loaded image: a:1\n"]
        await sound(store)

    async def look(store: Store) -> None:
        assert ids(store) == set(MADE.ids.values())
        assert listed(store) == listed(store, show_all=True) == [(MADE.ids[HOST], ["a:1"])]
        assert listed(store, filters=Filters.parse('{"dangling":["true"]}')) == []
        for platform, image_id in MADE.ids.items():
            assert (await on(store, "a:1", platform)).id == image_id
            details = await store.images.inspect("a:1", platforms.parse(platform))
            assert [name.familiar for name in details.names] == ["a:1"]
            assert store.catalog.find(MADE.digests[platform]).id == image_id
            assert store.catalog.find(f"a@{MADE.digests[platform]}").id == image_id
            with pytest.raises(NotFound):
                store.catalog.find(f"b@{MADE.digests[platform]}")
        assert (await on(store, "a:1")).id == MADE.ids[HOST]
        assert store.catalog.find(digests.of(MADE.index)).id == MADE.ids[HOST]
        with pytest.raises(NotFound, match=r"^image with reference a:1 was found but does not provide"):
            await on(store, "a:1", "linux/s390x")
        assert store.lost == []
        await sound(store)

    play(root, load, look)


def test_a_further_platform_is_added_and_this_machines_is_what_a_name_means(root: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(layout(MADE, "a:1", (OTHER,)))
        assert listed(store) == [(MADE.ids[OTHER], ["a:1"])]
        await store.load(layout(MADE, "a:1", (HOST,)))
        assert listed(store) == [(MADE.ids[HOST], ["a:1"])]
        await store.load(layout(MADE, "a:1", ("linux/arm/v7",)))
        assert listed(store) == [(MADE.ids[HOST], ["a:1"])]
        assert ids(store) == set(MADE.ids.values())
        await sound(store)

    async def again(store: Store) -> None:
        assert listed(store) == [(MADE.ids[HOST], ["a:1"])]
        index = store.catalog.index_of("a:1")
        assert index is not None
        assert index.is_whole
        assert index.images == tuple(MADE.ids.values())

    play(root, scene, again)


def test_the_last_name_takes_every_platform_along(root: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(layout(MADE, "a:1"))
        await store.images.tag("a:1", "b", "2")
        gone = await store.images.remove("a:1")
        assert [one.untagged for one in gone] == ["a:1"]
        assert ids(store) == set(MADE.ids.values())
        gone = await store.images.remove("b:2")
        deleted = [one.deleted for one in gone if one.deleted]
        assert set(MADE.ids.values()) < set(deleted)
        assert [event.action for event in store.events].count("delete") == 3
        await store.settle()
        assert store.files() == []

    async def after(store: Store) -> None:
        assert ids(store) == set()
        rows = store.database.read(lambda c: c.execute("SELECT count(*) FROM image_indexes").fetchone())
        assert rows == (0,)

    play(root, scene, after)


def test_a_name_that_goes_to_a_newer_index_leaves_the_older_dangling(root: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(layout(MADE, "a:1"))
        await store.load(layout(NEXT, "a:1", (HOST,)))
        assert sorted(listed(store)) == sorted([(NEXT.ids[HOST], ["a:1"]), (MADE.ids[HOST], [])])
        pruned = await store.images.prune()
        assert set(MADE.ids.values()) <= {one.deleted for one in pruned.removed}
        assert ids(store) == {NEXT.ids[HOST]}
        await sound(store)

    play(root, scene)


def test_one_platform_is_removed_and_the_rest_stays(root: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(layout(MADE, "a:1"))
        wanted = [platforms.parse(OTHER)]
        gone = await store.images.remove("a:1", wanted=wanted)
        assert gone[0].deleted == MADE.ids[OTHER]
        with pytest.raises(NotFound):
            await store.images.remove("a:1", wanted=wanted)
        with pytest.raises(NotFound):  # none of them, if one is not there
            await store.images.remove("a:1", wanted=[platforms.parse(HOST), *wanted])
        assert listed(store) == [(MADE.ids[HOST], ["a:1"])]
        # The name means another platform when its own goes.
        await store.images.remove("a:1", wanted=[platforms.parse(HOST)])
        assert listed(store) == [(MADE.ids["linux/arm/v7"], ["a:1"])]
        await sound(store)

    async def last(store: Store) -> None:
        assert listed(store) == [(MADE.ids["linux/arm/v7"], ["a:1"])]
        gone = await store.images.remove("a:1", wanted=[ARM])
        assert gone[0].untagged == "a:1"
        assert ids(store) == set()
        await store.settle()
        assert store.files() == []

    play(root, scene, last)


@pytest.mark.parametrize("running", [False, True])
def test_containers_of_any_platform_keep_the_image(running: bool, root: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(layout(MADE, "a:1"))
        other = MADE.ids[OTHER]
        store.users[other] = [ImageUse(container_id="c" * 64, name="c", running=running)]
        with pytest.raises(Conflict, match=r"container c+ is using its referenced image"):
            await store.images.remove("a:1")
        with pytest.raises(Conflict, match=r"is being used by (running|stopped) container"):
            await store.images.remove("a:1", wanted=[platforms.parse(OTHER)])
        pruned = await store.images.prune(Filters.parse('{"dangling":["false"]}'))
        assert pruned.removed == []
        if not running:
            await store.images.remove("a:1", force=True)
            assert ids(store) == {other}
            assert listed(store) == [(other, [])]
        await sound(store)

    play(root, scene)


def test_a_part_with_a_name_of_its_own_outlives_the_index(root: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(layout(MADE, "a:1"))
        await store.images.tag(MADE.ids[OTHER], "own", "1")
        assert len(listed(store)) == 2
        await store.images.remove("a:1")
        assert listed(store) == [(MADE.ids[OTHER], ["own:1"])]
        await sound(store)

    play(root, scene)


def test_the_last_platform_leaves_names_that_lead_to_the_image_itself(root: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(layout(MADE, "a:1", (HOST,)))
        raw = store.catalog.find("a:1").config.raw
        with store.layers.holding() as hold:
            await store.catalog.add([NewImage(raw=raw, names=(references.parse("b:1"),))], hold)
        gone = await store.images.remove("a:1", wanted=[platforms.parse(HOST)])
        assert [one.untagged for one in gone] == ["a:1"]
        assert listed(store) == [(MADE.ids[HOST], ["b:1"])]
        assert list(store.catalog.indexes) == []

    play(root, scene)


def test_an_index_without_names_goes_when_its_main_image_has_others(root: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(layout(MADE, "a:1"))
        raw = store.catalog.find("a:1").config.raw
        single = archives.pack(archives.docker_files([], ["x:1"]))
        await store.load(single)
        with store.layers.holding() as hold:
            name = references.parse("b:1")
            await store.catalog.add([NewImage(raw=raw, names=(name,))], hold)
        await store.images.remove("a:1")
        assert ids(store) == {MADE.ids[HOST], store.catalog.find("x:1").id}
        assert store.catalog.index_of("b:1") is None
        await sound(store)

    play(root, scene)


def test_what_was_saved_is_loaded_as_it_was_with_the_same_bytes(root: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(layout(MADE, "a:1"))
        await store.load(layout(NEXT, "b:1"))
        await store.images.tag("a:1", "a", "2")
        whole = await saved(store, "a", "b:1")
        assert whole == await saved(store, "b:1", "a:2", "a:1")
        arm = await saved(store, "a:1", wanted=(ARM,))
        for name in ("a:1", "a:2", "b:1"):
            await store.images.remove(name)
        assert await store.load(whole) == [
            "Loaded image: a:1\n",
            "Loaded image: a:2\n",
            "Loaded image: b:1\n",
        ]
        assert ids(store) == {*MADE.ids.values(), *NEXT.ids.values()}
        assert await saved(store, "a", "b:1") == whole
        for name in ("a:1", "a:2", "b:1"):
            await store.images.remove(name)
        await store.load(arm)
        assert listed(store) == [(MADE.ids["linux/arm/v7"], ["a:1"])]
        await store.images.remove("a:1")
        messages = [m async for m in store.images.load(pieces(whole), quiet=True, wanted=[ARM])]
        assert next(m.stream for m in messages) == "Loaded image: a:1\n"
        assert ids(store) == {MADE.ids["linux/arm/v7"], NEXT.ids["linux/arm/v7"]}
        with pytest.raises(NotFound, match="no images providing the requested platform linux/s390x found"):
            async for _ in store.images.load(pieces(whole), wanted=[platforms.parse("linux/s390x")]):
                pass
        with pytest.raises(NotFound, match="no suitable export target found: image with reference a:1"):
            await saved(store, "a:1", wanted=(platforms.parse("linux/s390x"),))
        await sound(store)

    play(root, scene)


def test_the_same_images_in_two_indexes_keep_both(root: Path) -> None:
    docker = several.make({"shared": b"s"}, several.DOCKER)

    async def scene(store: Store) -> None:
        await store.load(layout(MADE, "a:1"))
        await store.load(layout(docker, "b:1"))
        whole = await saved(store, "a:1", "b:1")
        for name in ("a:1", "b:1"):
            await store.images.remove(name)
        assert ids(store) == set()
        await store.load(whole)
        for name, made in (("a:1", MADE), ("b:1", docker)):
            index = store.catalog.index_of(name)
            assert index is not None
            assert index.digest == digests.of(made.index)
            assert index.is_whole
        assert await saved(store, "a:1", "b:1") == whole
        assert len(store.images.list()) == 1
        assert len(store.images.list(manifests=True)) == 2

    play(root, scene)


def test_manifests_tell_what_is_here_and_what_is_not(root: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(layout(MADE, "a:1", (HOST,)))
        (one,) = store.images.list(manifests=True)
        assert one.platforms is not None
        assert one.platforms.target.digest == digests.of(MADE.index)
        assert [found.descriptor.digest for found in one.platforms.manifests] == list(MADE.digests.values())
        assert [found.available for found in one.platforms.manifests] == [
            platform == HOST for platform in several.PLATFORMS
        ]
        assert all(bool(found.content) == found.available for found in one.platforms.manifests)
        details = await store.images.inspect("a:1", manifests=True)
        assert details.platforms == one.platforms
        with pytest.raises(InvalidArgument, match="conflicting options"):
            await store.images.inspect("a:1", ARM, manifests=True)

    play(root, scene)


def test_a_check_sees_and_mends_documents_of_indexes(root: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(layout(MADE, "a:1"))
        index, manifest = digests.of(MADE.index), digests.Digest(MADE.digests[OTHER])
        for digest in (index, manifest):
            Path(store.catalog.blobs.path(digest)).write_bytes(b"other")
        report = await Checker(store.catalog, store.snapshots, store.database).check(mend=True)
        assert {(one.name, one.mended) for one in report.problems} == {(index, True), (manifest, True)}
        await sound(store)

    play(root, scene)


def test_rows_of_an_index_whose_blob_is_lost_cost_the_index_alone(root: Path) -> None:
    async def load(store: Store) -> None:
        await store.load(layout(MADE, "a:1"))
        Path(store.catalog.blobs.path(digests.of(MADE.index))).unlink()

    async def look(store: Store) -> None:
        assert len(store.lost) == 1
        assert (await on(store, "a:1")).id == MADE.ids[HOST]

    async def again(store: Store) -> None:
        assert store.lost == []
        assert len(listed(store)) == 3  # what was a part is an image without a name

    play(root, load, look, again)


def test_a_root_from_before_there_were_indexes_is_taken_along(root: Path) -> None:
    async def load(store: Store) -> None:
        await store.load(archives.pack(archives.oci_files([archives.layer(a=b"1")], "docker.io/library/a:1")))

    async def look(store: Store) -> None:
        assert [names for _, names in listed(store)] == [["a:1"]]
        assert store.lost == []

    play(root, load)
    newer = root / "newer.db"
    (root / "state.db").rename(newer)
    # A database from before the step that knows of indexes, with the same images.
    Database.open(str(root / "state.db"), MIGRATIONS[: MIGRATIONS.index(IMAGE_INDEXES)]).close()
    with contextlib.closing(sqlite3.connect(root / "state.db")) as database:
        database.execute("ATTACH ? AS newer", (str(newer),))
        for table, columns in (
            ("images", "*"),
            ("layers", "*"),
            ("image_references", "reference, image_id"),
        ):
            database.execute(f"INSERT INTO {table} SELECT {columns} FROM newer.{table}")
        database.commit()
    play(root, look)


def test_an_index_that_lists_no_such_manifest_is_not_kept(root: Path) -> None:
    async def scene(store: Store) -> None:
        await store.load(archives.pack(archives.oci_files([archives.layer(a=b"1")], "docker.io/library/a:1")))
        image = store.catalog.find("a:1")
        assert image.manifest is not None
        raw = store.catalog.blobs.read(image.manifest)
        with store.layers.holding() as hold:
            other = documents.encode({"schemaVersion": 2, "manifests": []})
            new = NewImage(raw=image.config.raw, names=(references.parse("a:1"),), manifest=raw, index=other)
            await store.catalog.add([new], hold)
        assert store.catalog.index_of("a:1") is None

    play(root, scene)
