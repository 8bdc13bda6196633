"""Files that are held by their contents, and contexts that are put together of them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from sampan.engine.buildsession import Hello, SessionContext, entries_of
from sampan.engine.heldfiles import Entry, HeldFiles, Receiver, Tree
from sampan.errors import InvalidArgument
from sampan.wire import sessions


def entry(number: int, path: str, data: bytes = b"", kind: str = "f", **more: object) -> Entry:
    members = {
        "number": number,
        "kind": kind,
        "mode": 0o755 if kind == "d" else 0o644,
        "size": len(data),
        "seconds": 1000,
        "stamp": f"s{number}",
        "capability": "",
        "path": path,
        "link": "",
    }
    return Entry(**{**members, **more})  # type: ignore[arg-type]


def packed(number: int, data: bytes) -> bytes:
    return sessions.FILE.pack(number, len(data)) + data + b"\1"


@pytest.fixture
def held(tmp_path: Path) -> HeldFiles:
    found = HeldFiles(str(tmp_path / "held"), "boot")
    found.prepare()
    return found


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_files_are_received_in_any_pieces(held: HeldFiles, tmp_path: Path, step: int) -> None:
    files = {0: b"", 1: b"hello", 2: b"x" * 500}
    wanted = [entry(number, f"f{number}", data) for number, data in files.items()]
    stream = b"".join(packed(number, data) for number, data in files.items())
    receiver = Receiver(held, wanted)
    receiver.feed(stream[at : at + step] for at in range(0, len(stream), step))
    receiver.finish()
    for one in wanted:
        digest, steady = receiver.found[one.number]
        assert (digest, steady) == (hashlib.sha256(files[one.number]).hexdigest(), True)
        held.link(one, digest, str(tmp_path / one.path))
        assert (tmp_path / one.path).read_bytes() == files[one.number]
        assert (tmp_path / one.path).stat().st_mtime == 1000


@pytest.mark.parametrize(
    "stream",
    [
        packed(5, b"hello"),
        packed(0, b"longer than told"),
        packed(0, b"hello") + packed(0, b"hello"),
        packed(0, b"hello")[:-1],
        b"",
        b"\0",
    ],
)
def test_what_was_not_asked_for_is_refused_and_leaves_nothing(
    held: HeldFiles, tmp_path: Path, stream: bytes
) -> None:
    receiver = Receiver(held, [entry(0, "f", b"hello")])

    def receive() -> None:
        receiver.feed([stream])
        receiver.finish()

    with pytest.raises(InvalidArgument):
        receive()
    receiver.close()
    assert [path for path in (tmp_path / "held/partial").rglob("*") if path.is_file()] == []


def test_a_look_is_made_of_the_same_contents(held: HeldFiles, tmp_path: Path) -> None:
    one = entry(0, "f", b"hello")
    receiver = Receiver(held, [one])
    receiver.feed([packed(0, b"hello")])
    digest = receiver.found[0][0]
    other = entry(1, "g", b"hello", mode=0o755, seconds=5)
    assert held.has(other, digest)
    held.link(other, digest, str(tmp_path / "g"))
    assert ((tmp_path / "g").stat().st_mode & 0o777, (tmp_path / "g").stat().st_mtime) == (0o755, 5)
    assert not held.has(entry(2, "h", b"other"), hashlib.sha256(b"other").hexdigest())


def test_what_is_held_survives_a_daemon_but_no_restart_of_the_host(held: HeldFiles, tmp_path: Path) -> None:
    one = entry(0, "f", b"hello")
    Receiver(held, [one]).feed([packed(0, b"hello")])
    digest = hashlib.sha256(b"hello").hexdigest()
    held.remember("folder", {"f": ("s0", digest)})
    for boot, there in (("boot", True), ("another", False)):
        later = HeldFiles(str(tmp_path / "held"), boot)
        later.prepare()
        assert later.has(one, digest) == there
        assert bool(later.index("folder")) == there


def test_what_was_built_longest_ago_goes_first(held: HeldFiles) -> None:
    for number, folder in enumerate(("old", "new")):
        data = folder.encode() * 100
        Receiver(held, [entry(0, "f", data)]).feed([packed(0, data)])
        held.remember(folder, {"f": ("s", hashlib.sha256(data).hexdigest())})
        held.used(folder, 1000 + number)
    with held.session():
        assert held.trim(400) == 0  # somebody is at it
    assert held.trim(400) == 300
    assert (held.index("old"), bool(held.index("new"))) == ({}, True)
    assert held.size == 300


@pytest.mark.parametrize(
    "path", ["", "/etc", "../x", "a/../../x", "a//b", "./a", "a/.", "x" * 256, "a/" * 3000 + "b"]
)
def test_a_path_that_leads_out_is_no_entry(path: str) -> None:
    row = "\0".join(["0", "f", "644", "1", "1", "", "", path, ""]) + "\0"
    with pytest.raises(InvalidArgument):
        entries_of(row.encode())


@pytest.mark.parametrize(
    "row",
    [
        "0\0f\0",
        "x\0f\0644\0001\0001\0\0\0a\0\0",
        "0\0b\0644\0001\0001\0\0\0a\0\0",
        "0\0f\0009\0001\0001\0\0\0a\0\0",
        "0\0f\0644\0-1\0001\0\0\0a\0\0",
        "-1\0f\0644\0001\0001\0\0\0a\0\0",
        "0\0l\0644\0001\0001\0\0\0a\0\0",
        "0\0f\0644\0001\0001\0\0zz\0a\0\0",
        "no end",
    ],
)
def test_a_description_that_is_wrong_is_refused(row: str) -> None:
    with pytest.raises(InvalidArgument):
        entries_of(row.encode())


def test_a_tree_is_made_of_folders_that_were_listed(held: HeldFiles, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    tree = Tree(held, str(root))
    with pytest.raises(InvalidArgument, match="without its folder"):
        tree.place([entry(0, "link", kind="l", link="/etc"), entry(1, "link/passwd", b"x")], {})
    assert [one.name for one in root.iterdir()] == ["link"]


class FakeSession:
    """A client with these files. ``asked`` is what it had to do."""

    def __init__(self, files: dict[str, bytes], stamps: str = "s") -> None:
        self.files = files
        self.stamps = stamps
        self.hello = Hello(dockerfile="FROM scratch", folder="here")
        self.asked: list[tuple[str, list[str]]] = []

    def _names(self, numbers: Sequence[int]) -> list[str]:
        return [sorted(self.files)[number] for number in numbers]

    async def entries(self, _context: str, paths: Sequence[str]) -> list[Entry]:
        self.asked.append(("list", list(paths)))
        stamp = self.stamps
        return [
            entry(number, name, self.files[name], stamp=stamp and stamp + name)
            for number, name in enumerate(sorted(self.files))
        ]

    async def digests(self, _context: str, numbers: Sequence[int]) -> list[str]:
        names = self._names(numbers)
        self.asked.append(("digests", names))
        return [hashlib.sha256(self.files[name]).hexdigest() for name in names]

    async def fetch(self, _context: str, numbers: Sequence[int]) -> AsyncIterator[Sequence[bytes]]:
        names = self._names(numbers)
        self.asked.append(("fetch", names))
        for number, name in zip(numbers, names, strict=True):
            yield [packed(number, self.files[name])]


def used(held: HeldFiles, tmp_path: Path, session: FakeSession) -> dict[str, bytes]:
    """The files of the context as a step would see them."""
    workspace = tmp_path / f"work{len(list(tmp_path.iterdir()))}"
    workspace.mkdir()

    async def scene() -> str:
        context = SessionContext(str(workspace), session, held)  # type: ignore[arg-type]
        await context.origin(["."])
        return await context.files(["."])

    root = Path(asyncio.run(scene()))
    return {path.name: path.read_bytes() for path in root.iterdir()}


def test_only_what_is_not_held_is_sent(held: HeldFiles, tmp_path: Path) -> None:
    files = {"a": b"first", "b": b"second"}
    session = FakeSession(files)
    assert used(held, tmp_path, session) == files
    assert session.asked == [("list", ["."]), ("fetch", ["a", "b"])]
    again = FakeSession(files)
    assert used(held, tmp_path, again) == files
    assert again.asked == [("list", ["."])]
    changed = FakeSession({"a": b"first", "b": b"changed"}, stamps="t")
    assert used(held, tmp_path, changed) == changed.files
    assert changed.asked == [("list", ["."]), ("digests", ["a"]), ("fetch", ["b"])]
    unsure = FakeSession(files, stamps="")
    assert used(held, tmp_path, unsure) == files
    assert unsure.asked == [("list", ["."]), ("digests", ["a", "b"])]
