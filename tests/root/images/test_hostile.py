"""Hostile archives: each is refused and leaves no trace, or comes out harmless, by whatever driver.

What registries may do is tested in ``tests/e2e/test_registry_trouble.py`` and ``tests/unit/registry``, single
members in ``tests/unit/sandbox/test_unpack.py``.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument
from sampan.sandbox.unpack import Limits
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.wire import tar
from sampan.wire.tar import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, LINK, SYMLINK, Member
from tests import archives
from tests.root.images.stores import Store, opened, pieces

pytestmark = pytest.mark.root

GOOD = archives.layer(good=b"good")


def members(*found: Member, **files: bytes) -> bytes:
    return archives.pack({**{str(number): one for number, one in enumerate(found)}, **files})


def image(layer: bytes, *, zipped: bool = False) -> bytes:
    """An archive whose second layer is the hostile one."""
    return archives.pack(archives.docker_files([GOOD, layer], ["hostile:1"], zipped=zipped))


def refused(
    root: Path, archive: bytes, *, words: str, driver: str = "", limits: Limits | None = None
) -> None:
    """A load of it fails with these words and nothing stays; a good one is taken afterwards."""

    async def scene() -> None:
        async with opened(root, limits=limits) as store:
            with pytest.raises(InvalidArgument, match=words or None) as caught:
                await store.load(archive)
            assert "\n" not in str(caught.value)
            await store.settle()
            assert (store.files(), len(store.catalog)) == ([], 0)
            assert store.layers.strays() == []

    asyncio.run(scene())


def taken(root: Path, layer: bytes, look: Callable[[Path], None], driver: str = "") -> None:
    """It is loaded, and its files are as ``look`` wants them."""

    async def scene() -> None:
        async with opened(root, driver=driver) as store:
            await store.load(image(layer))
            look(store.tree(store.catalog.find("hostile:1"), 1))

    asyncio.run(scene())


@pytest.fixture(params=["overlay2", "vfs"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """What a layer is not to reach: a file beside the store."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "kept").write_bytes(b"kept")
    yield place
    assert os.listdir(place) == ["kept"]
    assert (place / "kept").read_bytes() == b"kept"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (members(**{"../" * 8 + "etc/hostile": b"x"}), "leads out of the layer"),
        (members(Member(name=b"h", kind=LINK, link=b"../../../outside/kept")), "leads out of the layer"),
        (members(Member(name=b"h", kind=LINK, link=b"/etc/passwd")), "which is not in the layer"),
        (members(Member(name=b"n" * 4096)), "file name too long"),
        (members(Member(name=b"d/" * 3000 + b"f")), "too long"),
        (members(Member(name=b"l", kind=SYMLINK, link=b"l"), **{"l/x": b"y"}), "too many levels"),
        (members(Member(name=b"a", kind=b"Z")), "unsupported type"),
        (members(Member(name=b".wh..", kind=tar.REGULAR)), "whiteout of nothing"),
        (members(Member(name=b"n", kind=CHARACTER, major=1 << 13)), "out of range"),
        (members(a=b"x")[:-1300], "unexpected end of archive"),
        (tar.header(Member(name=b"a", size=1 << 40)), "unexpected end of archive"),
        (b"\xff" * 2048, ""),
    ],
)
def test_what_is_refused_leaves_no_trace(layer: bytes, words: str, outside: Path, tmp_path: Path) -> None:
    refused(tmp_path / "store", image(layer), words=words)


def test_absolute_names_and_links_stay_inside(driver: str, outside: Path, tmp_path: Path) -> None:
    target = os.fsencode(outside)
    layer = members(
        Member(name=b"/etc/passwd", mode=0o600),
        Member(name=b"out", kind=SYMLINK, link=target),
        Member(name=b"through", kind=SYMLINK, link=b"out"),
        **{"made" + str(outside) + "/deep": b"x"},
    )

    def look(tree: Path) -> None:
        assert stat.S_IMODE(os.lstat(tree / "etc/passwd").st_mode) == 0o600
        assert os.readlink(tree / "out") == str(outside)

    taken(tmp_path / "store", layer, look, driver)


def test_writing_through_links_lands_in_the_layer(driver: str, outside: Path, tmp_path: Path) -> None:
    target = os.fsencode(outside)
    layer = members(
        Member(name=target.lstrip(b"/") + b"/", kind=DIRECTORY, mode=0o755),
        Member(name=b"out", kind=SYMLINK, link=target),
        Member(name=b"through", kind=SYMLINK, link=b"/out"),
        **{"out/kept": b"overwritten", "through/more": b"more"},
    )

    def look(tree: Path) -> None:
        inside = Path(f"{tree}{outside}")
        assert (inside / "kept").read_bytes() == b"overwritten"
        assert (inside / "more").read_bytes() == b"more"

    taken(tmp_path / "store", layer, look, driver)


def test_devices_are_nodes_that_nobody_opens(driver: str, tmp_path: Path) -> None:
    layer = members(
        Member(name=b"disk", kind=BLOCK_DEVICE, major=259, minor=7, mode=0o666),
        Member(name=b"pipe", kind=FIFO, mode=0o600),
        Member(name=b"disk", size=0, mode=0o644),
        Member(name=b"null", kind=CHARACTER, major=1, minor=3, mode=0o666),
    )

    def look(tree: Path) -> None:
        assert stat.S_ISREG(os.lstat(tree / "disk").st_mode)  # the later member counts
        assert stat.S_ISFIFO(os.lstat(tree / "pipe").st_mode)
        assert os.lstat(tree / "null").st_rdev == os.makedev(1, 3)

    taken(tmp_path / "store", layer, look, driver)


def test_duplicates_and_names_that_differ_by_case_are_what_they_say(driver: str, tmp_path: Path) -> None:
    first = Member(name=b"twice", size=5)
    layer = (tar.header(first) + b"first" + bytes(tar.padding(5))) * 3 + members(
        **{"twice": b"last!", "Case": b"upper", "case": b"lower", "CASE/x": b"folder"}
    )

    def look(tree: Path) -> None:
        assert (tree / "twice").read_bytes() == b"last!"
        found = ((tree / "Case").read_bytes(), (tree / "case").read_bytes(), (tree / "CASE/x").read_bytes())
        assert found == (b"upper", b"lower", b"folder")

    taken(tmp_path / "store", layer, look, driver)


def test_a_million_entries_end_at_the_limit(tmp_path: Path) -> None:
    one = tar.header(Member(name=b"d/", kind=DIRECTORY, mode=0o755))
    many = one + b"".join(tar.header(Member(name=b"d/%d" % number)) for number in range(1200)) + tar.END
    refused(
        tmp_path / "store",
        image(many),
        words="layer has more than the limit of 1000 entries",
        limits=Limits(entries=1000),
    )


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(size=1 << 20), "layer is larger than the limit of 1048576 bytes"),
        (Limits(ratio=100), "layer is more than the limit of 100 times as large as its archive"),
    ],
)
@pytest.mark.parametrize("place", ["in a file", "after the end", "in a sparse file's claim"])
def test_bombs_end_at_a_limit(limits: Limits, words: str, place: str, tmp_path: Path) -> None:
    if place == "in a file":
        layer = members(zeros=bytes(8 << 20))
    elif place == "after the end":
        layer = members(small=b"x") + bytes(8 << 20)
    elif limits.ratio:
        pytest.skip("a hole is no data")
    else:
        claim = Member(name=b"holes", sparse=tar.Sparse(size=8 << 20, segments=((8 << 20, 0),)))
        plan = tar.sparse_plan(claim.sparse)  # type: ignore[arg-type]
        claim.size = len(plan)
        layer = tar.header(claim) + plan + tar.END
    refused(tmp_path / "store", image(layer, zipped=True), words=words, limits=limits)


def test_what_is_just_compressible_is_no_bomb(tmp_path: Path) -> None:
    async def scene() -> None:
        async with opened(tmp_path / "store", limits=Limits(size=2 << 20, ratio=5000)) as store:
            await store.load(image(members(zeros=bytes(1 << 20)), zipped=True))
            assert store.names() == ["hostile:1"]

    asyncio.run(scene())


def _lying_digest() -> bytes:
    files = archives.docker_files([GOOD, GOOD], ["hostile:1"])
    return archives.pack({**files, "1/layer.tar": archives.layer(other=b"x")})


def _lying_size() -> bytes:
    files = archives.oci_files([GOOD], "hostile:1")
    for name, data in files.items():
        if isinstance(data, bytes) and b'"layers"' in data and b'"size": ' in data:
            document = json.loads(data)
            document["layers"][0]["size"] += 1
            raw = json.dumps(document).encode()
            index = json.loads(files["index.json"])  # type: ignore[arg-type]
            index["manifests"][0] |= {"digest": digests.of(raw), "size": len(raw)}
            kept = {key: value for key, value in files.items() if key not in (name, "index.json")}
            path = f"blobs/sha256/{digests.hex_of(digests.of(raw))}"
            return archives.pack({**kept, path: raw, "index.json": json.dumps(index).encode()})
    raise AssertionError("no manifest")


def _own_index() -> bytes:
    """An index that lists one of its own name: no digest can be its own, so it lies."""
    name = "0" * 64
    entry = {"mediaType": documents.OCI_INDEX, "digest": f"sha256:{name}", "size": 100}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    layout = b'{"imageLayoutVersion": "1.0.0"}'
    return archives.pack({"oci-layout": layout, "index.json": index, f"blobs/sha256/{name}": index})


def _nested_indexes() -> bytes:
    layout: dict[str, bytes | Member] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    raw = json.dumps({"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": []}).encode()
    for depth in range(40):
        layout[f"blobs/sha256/{digests.hex_of(digests.of(raw))}"] = raw
        entry = archives.descriptor(raw, documents.OCI_INDEX, annotations={"depth": str(depth)})
        raw = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return archives.pack({**layout, "index.json": raw})


def _huge_document() -> bytes:
    return archives.pack({"manifest.json": b" " * (100 << 20)})


def _path_for_a_layer() -> bytes:
    files = archives.docker_files([GOOD], ["hostile:1"])
    manifest = json.loads(files["manifest.json"])  # type: ignore[arg-type]
    manifest[0]["Layers"] = ["../../../../../etc/passwd"]
    return archives.pack({**files, "manifest.json": json.dumps(manifest).encode()})


@pytest.mark.parametrize(
    "make", [_lying_digest, _lying_size, _own_index, _nested_indexes, _huge_document, _path_for_a_layer]
)
def test_lying_documents_leave_no_trace(make: Callable[[], bytes], tmp_path: Path) -> None:
    refused(tmp_path / "store", make(), words="")


def test_an_import_is_held_to_the_limits_too(tmp_path: Path) -> None:
    async def scene() -> None:
        async with opened(tmp_path / "store", limits=Limits(entries=2)) as store:
            await _refused_import(store)

    asyncio.run(scene())


async def _refused_import(store: Store) -> None:
    from sampan.engine.images import ImportOptions

    bomb = gzip.compress(members(**{str(number): b"" for number in range(3)}))
    with pytest.raises(InvalidArgument, match="more than the limit of 2 entries"):
        await store.images.import_(pieces(bomb), ImportOptions(repository="bomb"))
    await store.settle()
    assert store.files() == []
