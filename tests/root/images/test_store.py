"""Loading, importing, naming, removing, saving and recovering images, on a real store."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import os
import shutil
import sqlite3
import stat
import tarfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.engine.images import ImportOptions
from sampan.engine.lookups import ImageUse
from sampan.engine.model import Filters
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.sandbox.unpack import Limits
from sampan.spec import digest as digests
from sampan.wire import tar
from sampan.wire.tar import Member
from tests import archives
from tests.root.images.stores import Store, opened, pieces, read

pytestmark = pytest.mark.root

Scene = Callable[[Store], Awaitable[None]]

ONE, TWO, THREE = archives.layer(one=b"1"), archives.layer(two=b"22"), archives.layer(three=b"333")
SIMPLE = archives.pack(archives.docker_files([ONE, TWO], ["a:1", "a:2"]))


def play(root: Path, *scenes: Scene, **options: Any) -> None:
    """Each scene in an engine of its own life on the same store."""

    async def act(scene: Scene) -> None:
        async with opened(root, **options) as store:
            await scene(store)

    for scene in scenes:
        asyncio.run(act(scene))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_docker_archive_is_loaded_named_and_still_there_after_a_restart(root: Path) -> None:
    async def load(store: Store) -> None:
        assert await store.load(SIMPLE) == ["Loaded image: a:1\n", "Loaded image: a:2\n"]
        image = await store.catalog.resolve("a:1")
        assert image.id == digests.of(archives.config([ONE, TWO]))
        assert (image.size, len(image.chain)) == (3, 2)
        assert (store.tree(image, 1) / "two").read_bytes() == b"22"
        assert [event.action for event in store.events] == ["load"]

    async def look(store: Store) -> None:
        image = await store.catalog.resolve("a:2")
        assert await store.catalog.resolve(image.id) is image
        assert await store.catalog.resolve(image.id[7:20]) is image
        assert store.names() == ["a:1", "a:2"]
        assert (store.tree(image) / "one").read_bytes() == b"1"
        assert store.lost == []

    play(root, load, look)


@pytest.mark.parametrize(
    "archive",
    [
        archives.pack(archives.docker_files([ONE, TWO], ["a:1"], zipped=True)),
        archives.pack(archives.oci_files([ONE, TWO], "a:1")),
        gzip.compress(archives.pack(archives.oci_files([ONE, TWO], "docker.io/library/a:1"))),
    ],
    ids=["docker, gzip layers", "oci", "oci, gzip as a whole"],
)
def test_every_layout_gives_the_same_image(archive: bytes, root: Path) -> None:
    async def load(store: Store) -> None:
        assert await store.load(archive) == ["Loaded image: a:1\n"]
        image = await store.catalog.resolve("a:1")
        assert image.id == digests.of(archives.config([ONE, TWO]))
        assert (store.tree(image, 1) / "two").read_bytes() == b"22"

    play(root, load)


def test_an_archive_without_names_tells_the_id(root: Path) -> None:
    async def load(store: Store) -> None:
        archive = archives.pack(archives.docker_files([ONE]))
        expected = digests.of(archives.config([ONE]))
        assert await store.load(archive) == [f"Loaded image ID: {expected}\n"]
        assert store.images.list()[0].names == ()

    play(root, load)


def test_layers_are_shared_and_loading_again_changes_nothing(root: Path) -> None:
    async def load(store: Store) -> None:
        await store.load(SIMPLE)
        await store.settle()
        before = store.files()
        await store.load(SIMPLE)
        await store.settle()
        assert store.files() == before
        await store.load(archives.pack(archives.docker_files([ONE, THREE], ["b"])))
        a, b = await store.catalog.resolve("a:1"), await store.catalog.resolve("b")
        assert a.chain[0] == b.chain[0]
        assert a.chain[1] != b.chain[1]
        shared = {s.names[0].familiar: s.shared_size for s in store.images.list(shared_size=True)}
        assert shared == {"a:1": 1, "b:latest": 1}

    play(root, load)


def test_two_loads_of_the_same_archive_at_once(root: Path) -> None:
    async def load(store: Store) -> None:
        await asyncio.gather(*(store.load(SIMPLE) for _ in range(4)))
        await store.settle()
        assert len(store.catalog) == 1
        assert len([name for name in store.files() if name.startswith("layer")]) == 2

    play(root, load)


def test_several_images_in_one_archive_appear_together_or_not_at_all(root: Path) -> None:
    first = archives.docker_files([ONE], ["a"])
    second = archives.docker_files([TWO], ["b"])
    listing = json.loads(first.pop("manifest.json"))  # type: ignore[arg-type]
    entry = json.loads(second.pop("manifest.json"))[0]  # type: ignore[arg-type]
    files = {**first, **{("x/" + name if name == "0/layer.tar" else name): d for name, d in second.items()}}
    entry["Layers"] = ["x/0/layer.tar"]

    async def load(store: Store) -> None:
        bad = {**files, "x/0/layer.tar": THREE, "manifest.json": json.dumps([*listing, entry]).encode()}
        with pytest.raises(InvalidArgument, match="wrong diff id"):
            await store.load(archives.pack(bad))
        await store.settle()
        assert (store.files(), len(store.catalog)) == ([], 0)
        good = {**files, "manifest.json": json.dumps([*listing, entry]).encode()}
        assert await store.load(archives.pack(good)) == [
            "Loaded image: a:latest\n",
            "Loaded image: b:latest\n",
        ]

    play(root, load)


def test_a_name_moves_to_the_image_loaded_last(root: Path) -> None:
    async def load(store: Store) -> None:
        await store.load(archives.pack(archives.docker_files([ONE], ["a"])))
        old = await store.catalog.resolve("a")
        messages = await store.load(archives.pack(archives.docker_files([TWO], ["a"])))
        assert messages == [
            f"The image a:latest already exists, renaming the old one with ID {old.id} to empty string\n",
            "Loaded image: a:latest\n",
        ]
        assert store.catalog.names_of(old.id) == []

    play(root, load)


def cut(archive: bytes) -> bytes:
    return archive[: len(archive) // 2 // 512 * 512 + 100]


def changed(files: dict[str, bytes | Member], **members: bytes | None) -> bytes:
    """The archive with members replaced, or left out."""
    merged = {**files, **{name.replace("__", "/"): data for name, data in members.items()}}
    return archives.pack({name: data for name, data in merged.items() if data is not None})


OCI = archives.oci_files([ONE, TWO], "a:1")
LAST_BLOB = list(OCI)[-1]


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"", "unexpected end of archive"),
        (b"not a tar" * 1000, "invalid archive: invalid tar header"),
        (archives.pack({"x": b"y"}), "neither manifest.json nor index.json"),
        (cut(SIMPLE), "unexpected end of archive"),
        (gzip.compress(SIMPLE)[:-9], "unexpected end of gzip data"),
        (changed(archives.docker_files([ONE]), **{"0__layer.tar": None}), '"0/layer.tar" is missing'),
        (
            changed(archives.docker_files([ONE]), **{"0__layer.tar": TWO}),
            "wrong diff id calculated on extraction",
        ),
        (changed(archives.docker_files([ONE]), **{"manifest.json": b"{"}), "manifest.json: invalid JSON"),
        (changed(archives.docker_files([ONE]), **{"manifest.json": b"[]"}), "manifest.json: not a list"),
        (changed(archives.docker_files([ONE]), **{"manifest.json": b"[{}]"}), "an image without Config"),
        (
            archives.pack(archives.docker_files([ONE], rootfs={"type": "layers", "diff_ids": []})),
            "layers length mismatch: expected 0, got 1",
        ),
        (archives.pack(archives.docker_files([ONE], ["Bad:name"])), "must be lowercase"),
        (archives.pack({**OCI, LAST_BLOB: b"other"}), f"blob sha256:{LAST_BLOB[-64:]}: digest is"),
        (
            archives.pack({**OCI, LAST_BLOB: bytes(len(OCI[LAST_BLOB]))}),  # type: ignore[arg-type]
            f"blob sha256:{LAST_BLOB[-64:]}: digest is",
        ),
        (
            archives.pack({k: v for k, v in OCI.items() if k != LAST_BLOB}),
            f'"{LAST_BLOB}" is missing',
        ),
        (
            archives.pack(archives.docker_files([archives.layer(**{"../../../x": b""})])),
            r'archive member "../../../x": leads out of the layer',
        ),
        (archives.pack(archives.docker_files([ONE[:700]])), '"one": unexpected end of archive'),
    ],
)
def test_a_bad_archive_is_refused_and_leaves_nothing(archive: bytes, message: str, root: Path) -> None:
    async def load(store: Store) -> None:
        with pytest.raises(InvalidArgument, match=message) as caught:
            await store.load(archive)
        assert "\n" not in str(caught.value)
        await store.settle()
        assert (store.files(), len(store.catalog), store.events) == ([], 0, [])

    play(root, load)


def test_an_index_that_leads_to_itself_is_refused(root: Path) -> None:
    """A digest cannot be its own, but a chain of indexes may be as long as one likes."""
    index = json.loads(OCI["index.json"])  # type: ignore[arg-type]
    files = dict(OCI)
    for _ in range(8):
        raw = json.dumps(index).encode()
        files[f"blobs/sha256/{digests.hex_of(digests.of(raw))}"] = raw
        kind = "application/vnd.oci.image.index.v1+json"
        index = {"schemaVersion": 2, "manifests": [archives.descriptor(raw, kind)]}
    files["index.json"] = json.dumps(index).encode()

    async def load(store: Store) -> None:
        with pytest.raises(InvalidArgument, match="leads too deep"):
            await store.load(archives.pack(files))

    play(root, load)


def test_a_broken_upload_leaves_nothing(root: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield SIMPLE[:1024]
        raise ConnectionResetError

    async def load(store: Store) -> None:
        with pytest.raises(ConnectionResetError):
            async for _ in store.images.load(broken()):
                pass
        with pytest.raises(ConnectionResetError):
            await store.images.import_(broken(), ImportOptions(repository="a"))
        await store.settle()
        assert (store.files(), len(store.catalog)) == ([], 0)

    play(root, load)


def test_limits_refuse_a_bomb(root: Path) -> None:
    async def load(store: Store) -> None:
        bomb = gzip.compress(archives.layer(zeros=bytes(10 << 20)))
        with pytest.raises(InvalidArgument, match="larger than the limit of 1000000 bytes"):
            await store.load(archives.pack(archives.docker_files([ONE]) | {"0/layer.tar": bomb}))
        await store.settle()
        assert store.files() == []

    play(root, load, limits=Limits(size=1_000_000))


def test_import_applies_changes_and_keeps_what_the_tar_says(root: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        for kind, name, fields in (
            (tarfile.REGTYPE, "owned", {"uid": 4_000_000_000, "gid": 70_000, "mode": 0o6755}),
            (tarfile.CHRTYPE, "null", {"devmajor": 1, "devminor": 3, "mode": 0o666}),
            (tarfile.BLKTYPE, "disk", {"devmajor": 259, "devminor": 70_000}),
            (tarfile.DIRTYPE, "dir", {"uid": 5, "mode": 0o2775}),
            (tarfile.SYMTYPE, "dir/link", {"uid": 6, "linkname": "x"}),
            (tarfile.REGTYPE, "dir/plain", {}),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            for field_name, value in fields.items():
                setattr(info, field_name, value)
            if name == "owned":
                info.pax_headers = {
                    "SCHILY.xattr.user.note": "hello",
                    "SCHILY.xattr.trusted.overlay.opaque": "y",
                    "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00" + "\x00" * 12,
                }
            file.addfile(info)

    async def load(store: Store) -> None:
        image = await store.import_(gzip.compress(out.getvalue()), "deb", ["CMD x", "ENV A=b"])
        tree = store.tree(image)
        owned = (tree / "owned").stat()
        assert (owned.st_uid, owned.st_gid, stat.S_IMODE(owned.st_mode)) == (4_000_000_000, 70_000, 0o6755)
        assert sorted(os.listxattr(tree / "owned")) == ["security.capability", "user.note"]
        assert (tree / "null").stat().st_rdev == os.makedev(1, 3)
        assert stat.S_ISBLK((tree / "disk").stat().st_mode)
        assert (tree / "disk").stat().st_rdev == os.makedev(259, 70_000)
        assert os.lstat(tree / "dir/link").st_uid == 6
        # A set-group-id directory must not give its group to what the archive puts into it.
        assert os.lstat(tree / "dir/plain").st_gid == 0
        assert image.max_id == 4_000_000_000
        assert image.config.config.cmd == ("/bin/sh", "-c", "x")
        assert image.config.comment == "Imported from -"
        assert [event.action for event in store.events] == ["tag", "import"]

    play(root, load)


def test_whiteouts_and_opaque_directories_are_overlays(root: Path) -> None:
    upper = archives.pack({"d/.wh..wh..opq": b"", "e/.wh.x": b"", "d/new": b"", ".wh.f": b"", "f/in": b""})

    async def load(store: Store) -> None:
        lower = archives.pack({"d/old": b"", "e/x": b"", "f/hidden": b""})
        await store.load(archives.pack(archives.docker_files([lower, upper], ["a"])))
        image = await store.catalog.resolve("a")
        tree = store.tree(image, 1)
        assert os.getxattr(tree / "d", "trusted.overlay.opaque") == b"y"
        assert os.getxattr(tree / "f", "trusted.overlay.opaque") == b"y"
        assert stat.S_ISCHR(os.lstat(tree / "e/x").st_mode)
        assert os.listdir(tree / "d") == ["new"]

    play(root, load)


def test_directories_that_a_layer_only_passes_through_look_as_below(root: Path) -> None:
    lower = archives.pack(
        {
            ".": Member(name=b"./", kind=tar.DIRECTORY, mode=0o711, uid=3),
            "d": Member(name=b"d/", kind=tar.DIRECTORY, mode=0o1777, uid=7, mtime=9 * tar.SECOND),
        }
    )

    async def load(store: Store) -> None:
        upper = archives.pack({"d/f": b""})
        await store.load(archives.pack(archives.docker_files([lower, upper], ["a"])))
        tree = store.tree(await store.catalog.resolve("a"), 1)
        found = (tree / "d").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_mtime_ns) == (0o1777, 7, 9 * tar.SECOND)
        assert (stat.S_IMODE(tree.stat().st_mode), tree.stat().st_uid) == (0o711, 3)

    play(root, load)


# ---------------------------------------------------------------------- removing


def use(key: str = "c" * 64, *, running: bool = False) -> ImageUse:
    return ImageUse(container_id=key, name="x", running=running)


async def removed(store: Store, text: str, *, force: bool = False, prune: bool = True) -> list[str]:
    gone = await store.images.remove(text, force=force, prune=prune)
    return [record.untagged or record.deleted for record in gone]


def test_the_last_name_takes_the_image_and_its_own_layers(root: Path) -> None:
    async def act(store: Store) -> None:
        await store.load(SIMPLE)
        await store.load(archives.pack(archives.docker_files([ONE], ["b"])))
        image = await store.catalog.resolve("a:1")
        assert await removed(store, "a:1") == ["a:1"]
        assert await removed(store, "a:2") == ["a:2", image.id, image.chain[1]]
        await store.settle()
        assert store.names() == ["b:latest"]
        assert len([name for name in store.files() if name.startswith("layer")]) == 1
        assert await removed(store, "b") == ["b:latest", *await ids(store)]
        await store.settle()
        assert store.files() == []
        assert [e.action for e in store.events[2:]] == ["untag", "untag", "delete", "untag", "delete"]
        with pytest.raises(NotFound, match=r"^No such image: a:1$"):
            await store.images.remove("a:1")

    async def ids(store: Store) -> list[str]:
        return [digests.of(archives.config([ONE])), digests.of(ONE)]

    play(root, act)


def test_by_id_all_names_in_one_repository_go_and_several_need_force(root: Path) -> None:
    async def act(store: Store) -> None:
        await store.load(archives.pack(archives.docker_files([ONE], ["a"])))
        image = await store.catalog.resolve("a")
        short = image.id[7:19]
        await store.images.tag("a", "other/b", "2")
        message = f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple "
        message += "repositories"
        with pytest.raises(Conflict) as caught:
            await store.images.remove(short)
        assert str(caught.value) == message
        assert store.names() == ["a:latest", "other/b:2"]
        assert await removed(store, short, force=True) == ["a:latest", "other/b:2", image.id, image.chain[0]]
        await store.load(archives.pack(archives.docker_files([ONE], ["a"])))
        assert await removed(store, image.id) == ["a:latest", image.id, image.chain[0]]

    play(root, act)


def test_an_image_in_use_is_kept(root: Path) -> None:
    async def act(store: Store) -> None:
        await store.load(archives.pack(archives.docker_files([ONE], ["a"])))
        image = await store.catalog.resolve("a")
        short = image.id[7:19]
        store.users[image.id] = [use()]
        for text, force, message in (
            (
                "a",
                False,
                'conflict: unable to remove repository reference "a" (must force) - container cccccccccccc '
                f"is using its referenced image {short}",
            ),
            (
                short,
                False,
                f"conflict: unable to delete {short} (must be forced) - image is being used by stopped "
                "container cccccccccccc",
            ),
        ):
            with pytest.raises(Conflict) as caught:
                await store.images.remove(text, force=force)
            assert str(caught.value) == message
        store.users[image.id] = [use(running=True)]
        with pytest.raises(Conflict) as caught:
            await store.images.remove(short, force=True)
        assert str(caught.value) == (
            f"conflict: unable to delete {short} (cannot be forced) - image is being used by running "
            "container cccccccccccc"
        )
        # By name, force only takes the name from a running container's image.
        assert await removed(store, "a", force=True) == ["a:latest"]
        assert store.catalog.get(image.id) is not None

    play(root, act)


def test_a_snapshot_keeps_its_layers_when_the_image_goes(root: Path) -> None:
    async def act(store: Store) -> None:
        await store.load(archives.pack(archives.docker_files([ONE, TWO], ["a"])))
        image = await store.catalog.resolve("a")
        prepared = await store.snapshots.prepare("key", image)
        assert [record.split(":")[0] for record in await removed(store, "a", force=True)] == ["a", "sha256"]
        await store.settle()
        assert store.snapshots.mounts("key") == prepared

    async def again(store: Store) -> None:
        mounts = store.snapshots.mounts("key")
        assert [os.listdir(root / path) for path in mounts.lowers[:2]] == [["two"], ["one"]]
        threads: list[int] = []
        await store.snapshots.remove("key", then=lambda: threads.append(threading.get_ident()))
        assert threads
        assert threads != [threading.get_ident()]
        await store.settle()
        assert store.files() == []
        assert store.snapshots.keys() == ()

    play(root, act, again)


def test_prune_takes_the_nameless_and_on_demand_the_unused(root: Path) -> None:
    async def act(store: Store) -> None:
        await store.load(archives.pack(archives.docker_files([ONE], ["a"])))
        await store.load(archives.pack(archives.docker_files([TWO], ["a"])))
        await store.load(archives.pack(archives.docker_files([THREE], ["used"])))
        used = await store.catalog.resolve("used")
        store.users[used.id] = [use()]
        before = (await store.images.usage({})).total
        pruned = await store.images.prune()
        after = await store.images.usage({used.id: 1})
        assert pruned.space_reclaimed == before - after.total > 0
        assert after.held < after.total
        assert store.names() == ["a:latest", "used:latest"]
        pruned = await store.images.prune(Filters({"dangling": ("false",)}))
        assert pruned.removed[0].untagged == "a:latest"
        left = await store.images.usage({used.id: 1})
        assert (store.names(), pruned.space_reclaimed) == (["used:latest"], after.total - left.total)
        assert left.held == left.total
        with pytest.raises(InvalidArgument, match="invalid filter"):
            await store.images.prune(Filters({"x": ("1",)}))

    play(root, act)


# ---------------------------------------------------------------------- looking


def test_lists_are_filtered(root: Path) -> None:
    async def act(store: Store) -> None:
        early: dict[str, Any] = {"created": "2020-01-01T00:00:00Z", "config": {"Labels": {"k": "v"}}}
        await store.load(archives.pack(archives.docker_files([ONE], ["a/b:1", "c"], **early)))
        await store.load(archives.pack(archives.docker_files([TWO], ["d:2"])))
        await store.load(archives.pack(archives.docker_files([THREE])))

        def found(**filters: str) -> list[list[str]]:
            wanted = Filters({key: (value,) for key, value in filters.items()})
            return [[name.familiar for name in one.names] for one in store.images.list(wanted)]

        # Two of one age come in any order.
        assert sorted(found()[:2]) == [[], ["d:2"]]
        assert found()[2:] == [["a/b:1", "c:latest"]]
        assert found(reference="a/*") == [["a/b:1"]]
        assert found(reference="*") == [["d:2"], ["c:latest"]]
        assert found(reference="*:2") == [["d:2"]]
        assert found(dangling="true") == [[]]
        assert found(dangling="false") == [["d:2"], ["a/b:1", "c:latest"]]
        assert found(label="k=v") == [["a/b:1", "c:latest"]]
        assert found(label="k=w") == []
        assert found(before="d:2") == [["a/b:1", "c:latest"]]
        assert len(found(since="c")) == 2
        assert found(until="2021-01-01") == [["a/b:1", "c:latest"]]
        with pytest.raises(NotFound, match="No such image: nope:latest"):
            found(before="nope")

    play(root, act)


def test_history_gives_sizes_to_steps_that_made_layers(root: Path) -> None:
    history = [{"created_by": "a"}, {"created_by": "b", "empty_layer": True}, {"created_by": "c"}]

    async def act(store: Store) -> None:
        await store.load(archives.pack(archives.docker_files([ONE, TWO], ["a"], history=history)))
        steps = await store.images.history("a")
        assert [(step.entry.created_by, step.size) for step in steps] == [("c", 2), ("b", 0), ("a", 1)]
        assert [bool(step.image) for step in steps] == [True, False, False]

    play(root, act)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope", "No such image: nope:latest"),
        ("nope:1", "No such image: nope:1"),
        ("abc123", "No such image: abc123:latest"),
        ("f" * 64, "No such image: sha256:" + "f" * 64),
        ("sha256:" + "f" * 64, "No such image: sha256:" + "f" * 64),
    ],
)
def test_what_is_not_here_is_told_in_dockers_words(text: str, message: str, root: Path) -> None:
    async def act(store: Store) -> None:
        with pytest.raises(NotFound) as caught:
            await store.catalog.resolve(text)
        assert str(caught.value) == message

    play(root, act)


# ---------------------------------------------------------------------- save


async def archive_of(store: Store, *names: str) -> bytes:
    return b"".join([read(piece) async for piece in store.images.save(names)])


def test_what_is_saved_can_be_loaded_and_is_the_same_bytes_each_time(root: Path, tmp_path: Path) -> None:
    saved: list[bytes] = []

    async def save(store: Store) -> None:
        if len(store.catalog) == 0:
            await store.load(archives.pack(archives.docker_files([ONE, TWO], ["a:1"])))
            await store.load(archives.pack(archives.oci_files([ONE, THREE], "b:1")))
        saved.append(await archive_of(store, "a:1", "b:1"))
        saved.append(await archive_of(store, "b:1", "a:1"))

    async def load(store: Store) -> None:
        assert sorted(await store.load(saved[0])) == ["Loaded image: a:1\n", "Loaded image: b:1\n"]
        assert store.names() == ["a:1", "b:1"]
        saved.append(await archive_of(store, "a:1", "b:1"))
        manifest = (await store.catalog.resolve("b:1")).manifest
        assert manifest == digests.of(OCI_B["manifest"])

    play(root, save, save)
    play(tmp_path / "other", load)
    assert len(set(saved)) == 1
    with tarfile.open(fileobj=io.BytesIO(saved[0])) as file:
        names = file.getnames()
    assert names == sorted(names)
    assert {"index.json", "manifest.json", "oci-layout", "repositories"} < set(names)


def _oci_manifest(files: dict[str, bytes | Member]) -> bytes:
    index = json.loads(files["index.json"])  # type: ignore[arg-type]
    found = files["blobs/sha256/" + index["manifests"][0]["digest"][7:]]
    assert isinstance(found, bytes)
    return found


OCI_B = {"manifest": _oci_manifest(archives.oci_files([ONE, THREE], "b:1"))}


def test_saving_what_is_not_here_is_refused_at_once(root: Path) -> None:
    async def act(store: Store) -> None:
        with pytest.raises(NotFound, match=r"No such image: a$"):
            store.images.save(["a"])

    play(root, act)


def test_removing_an_image_while_it_is_saved_breaks_nothing(root: Path) -> None:
    async def act(store: Store) -> None:
        big = archives.layer(big=os.urandom(5 << 20))
        await store.load(archives.pack(archives.docker_files([big], ["a"])))
        whole = await archive_of(store, "a")
        stream = store.images.save(["a"])
        first = [read(await anext(stream))]
        await store.images.remove("a")
        assert b"".join(first + [read(piece) async for piece in stream]) == whole
        await store.settle()
        assert store.files() == []

    play(root, act)


# ---------------------------------------------------------------------- recovery


def test_what_no_row_names_is_removed_at_start(root: Path) -> None:
    async def load(store: Store) -> None:
        await store.load(SIMPLE)

    async def again(store: Store) -> None:
        await store.settle()
        assert len(store.files()) == 2 + 3
        assert store.names() == ["a:1", "a:2"]

    play(root, load)
    (root / "layers/77/fs/d").mkdir(parents=True)
    (root / "blobs/sha256" / ("0" * 64)).write_bytes(b"x")
    (root / "tmp/images/half").mkdir()
    play(root, again)


def test_a_power_loss_takes_no_layer_that_has_a_blob(root: Path) -> None:
    async def load(store: Store) -> None:
        await store.load(SIMPLE)

    async def again(store: Store) -> None:
        image = await store.catalog.resolve("a:1")
        assert (store.tree(image, 0) / "one").read_bytes() == b"1"
        assert (store.tree(image, 1) / "two").read_bytes() == b"22"
        assert store.lost == []

    play(root, load)
    # As after a power loss: never synced, and half of it gone.
    with sqlite3.connect(root / "state.db") as connection:
        connection.execute("UPDATE layers SET boot = 'earlier'")
    shutil.rmtree(root / "layers/1/fs")
    (root / "layers/2/fs/two").write_bytes(b"")
    play(root, again, boot="now")


def test_an_image_whose_files_are_lost_is_reported_and_gone(root: Path) -> None:
    async def load(store: Store) -> None:
        await store.load(SIMPLE)

    async def again(store: Store) -> None:
        assert len(store.lost) == 2
        assert store.lost[0].startswith(f"layer {digests.of(ONE)} is lost: blob")
        with pytest.raises(NotFound):
            await store.catalog.resolve("a:1")

    play(root, load)
    shutil.rmtree(root / "layers/1")
    os.unlink(root / "blobs/sha256" / digests.hex_of(digests.of(ONE)))
    play(root, again)


def test_a_row_without_its_directory_keeps_its_number(root: Path) -> None:
    """As after a power loss that took the directory: the layer that is unpacked again has it for itself."""

    async def load(store: Store) -> None:
        await store.load(SIMPLE)

    async def again(store: Store) -> None:
        other = archives.layer(three=b"333")
        await store.load(archives.pack(archives.docker_files([other], ["b:1"])))
        assert len({layer.id for layer in store.layers}) == 3
        assert (store.tree(await store.catalog.resolve("a:1"), 1) / "two").read_bytes() == b"22"

    play(root, load)
    shutil.rmtree(root / "layers/2")
    play(root, again, boot="now")


def test_layers_come_again_from_the_bottom_whatever_their_numbers(root: Path) -> None:
    async def load(store: Store) -> None:
        await store.load(SIMPLE)

    async def again(store: Store) -> None:
        assert store.lost == []
        image = await store.catalog.resolve("a:1")
        assert (store.tree(image, 0) / "one").exists()
        assert (store.tree(image, 1) / "two").exists()

    play(root, load)
    with contextlib.closing(sqlite3.connect(root / "state.db")) as database, database:
        database.execute("UPDATE layers SET id = 12 - id")
    for number in (1, 2):
        shutil.rmtree(root / f"layers/{number}")
    play(root, again, boot="now")


@pytest.mark.parametrize("lost", ["", "parent", "fs", "work"])
def test_a_snapshot_that_a_power_loss_took_is_made_again(root: Path, lost: str) -> None:
    async def make(store: Store) -> None:
        await store.load(SIMPLE)
        await store.snapshots.prepare("box", await store.catalog.resolve("a:1"))

    async def again(store: Store) -> None:
        assert not store.snapshots.is_whole("box")
        chain_id = (await store.catalog.resolve("a:1")).chain_id
        await store.snapshots.complete("box", chain_id)
        assert store.snapshots.is_whole("box")
        assert store.snapshots.parent("box") == chain_id
        if lost not in ("", "fs"):  # what was synced stays
            assert (root / "snapshots/box/fs/written").read_bytes() == b"1"

    play(root, make)
    (root / "snapshots/box/fs/written").write_bytes(b"1")
    place = root / "snapshots/box" / lost
    shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
    play(root, again)


# ---------------------------------------------------------------------- the base image


def test_the_base_image_is_made_when_it_is_asked_for(root: Path) -> None:
    async def act(store: Store) -> None:
        first, second = await asyncio.gather(
            store.catalog.resolve("sampan/base"), store.catalog.resolve("sampan/base:latest")
        )
        assert first.id == second.id
        tree = store.tree(first)
        assert os.path.lexists(tree / "bin/sh")
        assert (tree / "etc/passwd").read_text().startswith("root:x:0:0:")
        assert stat.S_IMODE((tree / "tmp").stat().st_mode) == 0o1777
        await store.images.remove("sampan/base")
        assert (await store.catalog.resolve("sampan/base")).id == first.id
        with pytest.raises(NotFound):
            await store.catalog.resolve("sampan/other")

    play(root, act)


def test_pieces_of_any_size_make_the_same_image(root: Path) -> None:
    async def act(store: Store) -> None:
        for size in (1, 7, 511, 513):
            async for _ in store.images.load(pieces(SIMPLE, size)):
                pass
        assert len(store.catalog) == 1

    play(root, act)
