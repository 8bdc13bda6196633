"""A disk that answers EIO: what failed is not acknowledged, nobody spins, and the end of that is the end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import HostFailure
from sampan.state import Database
from tests.faults.failing import Disk, failing_disk
from tests.faults.worlds import World, wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and /dev/fuse"
    ),
]


@pytest.fixture
def placed(tmp_path: Path) -> Iterator[tuple[World, Disk]]:
    (tmp_path / "data").mkdir()
    with failing_disk(tmp_path / "data", 96 << 20) as disk:
        found = World(tmp_path)
        try:
            status, said = found.load()
            assert status == 200, said
            yield found, disk
        finally:
            for key in found.containers():
                found.ask("DELETE", f"/containers/{key}?force=1&v=1")
            found.process.terminate()
            found.process.wait(30)


def test_what_did_not_reach_the_disk_is_not_acknowledged_and_the_end_of_the_fault_is_enough(
    placed: tuple[World, Disk],
) -> None:
    found, disk = placed
    found.run("ticks", "sh", "-c", "while :; do echo tick; sleep 0.05; done")
    with disk.failing("writes", "flushes"):
        status, said = found.create("lost", "true")
        assert status in (500, 503)
        assert "state.db cannot be written: disk I/O error" in said["message"]
        assert "\n" not in said["message"]
        status, said = found.ask("POST", "/volumes/create", {"Name": "lost"})
        assert status in (500, 503), said
        assert found.state("ticks")["Running"]
        used = found.seconds()
        end = time.monotonic() + 1
        wait_for(lambda: time.monotonic() > end, "what the daemon does by itself while the fault lasts")
        assert found.seconds() - used < 0.5
    wait_for(lambda: found.create("kept", "true")[0] == 201, "what is asked now is done")
    assert found.ask("POST", "/volumes/create", {"Name": "kept"})[0] == 201
    assert not [line for line in found.log.splitlines() if "Traceback" in line]
    found.kill()
    found.start()
    names = {name for known in found.containers().values() for name in known["Names"]}
    assert names == {"/ticks", "/kept"}
    assert found.state("ticks")["Running"]
    assert [known["Name"] for known in found.ask("GET", "/volumes")[1]["Volumes"]] == ["kept"]


def test_a_blob_that_cannot_be_read_is_named(placed: tuple[World, Disk]) -> None:
    found, disk = placed
    blob = max(found.data.glob("blobs/sha256/*"), key=lambda path: path.stat().st_size)
    with open(blob, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with disk.failing("reads"):
        problems = found.ask("POST", "/system/check")[1]["Problems"]
        named = [problem for problem in problems if blob.name in problem["Name"]]
        assert named
        assert "input/output error" in named[0]["Problem"].lower()
    assert found.ask("POST", "/system/check")[1]["Problems"] == []


def test_what_is_acknowledged_after_a_fault_is_on_the_disk(
    tmp_path: Path,
) -> None:
    """The kernel takes a page for clean that it could not write: it gets there only if it is written anew."""
    place, later = tmp_path / "data", tmp_path / "later"
    place.mkdir()
    later.mkdir()

    async def change(database: Database, disk: Disk) -> None:
        await database.write(lambda db: db.execute("CREATE TABLE told (word TEXT)").fetchall())
        for number in range(20):  # in the log, in the page cache
            word = f"{number} " + "x" * 5000
            database.post(lambda db, word=word: db.execute("INSERT INTO told VALUES (?)", (word,)))  # type: ignore[misc]
        await database.drain()
        with disk.failing("writes", "flushes"), pytest.raises(HostFailure, match="disk I/O error"):
            await database.write(lambda db: db.execute("INSERT INTO told VALUES ('failed')").fetchall())
        await database.write(lambda db: db.execute("INSERT INTO told VALUES ('kept')").fetchall())

    with failing_disk(place, 96 << 20) as disk:
        database = Database.open(str(place / "state.db"))
        try:
            asyncio.run(change(database, disk))
            with disk.after_power_loss(later):
                found = Database.open(str(later / "state.db"))
                rows = found.read(lambda db: db.execute("SELECT word FROM told").fetchall())
                found.close()
        finally:
            database.close()
    assert [row[0].split()[0] for row in rows] == [*map(str, range(20)), "kept"]
