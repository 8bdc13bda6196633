"""The kernel ends the engine's own processes for want of memory; what lies in /run is garbage."""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.engine.idblocks import DEFAULT_DIRECTORY as BLOCKS
from sampan.network.naming import bridge_name
from sampan.network.shared import DEFAULT_DIRECTORY as NETWORKS
from tests.crash.test_kills import processes, settled
from tests.faults.worlds import World, wait_for

MEMORY = Path("/sys/fs/cgroup/memory")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
starved_only = pytest.mark.skipif(not MEMORY.is_dir(), reason="needs a memory controller of its own")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    found = World(tmp_path_factory.mktemp("w"))
    try:
        assert found.load()[0] == 200
        yield found
    finally:
        found.end()


@contextlib.contextmanager
def starved(pid: int) -> Iterator[int]:
    """A process that gets no page more; a descriptor that tells its end."""
    group = MEMORY / f"sampan-starved-{pid}"
    group.mkdir()
    handle = os.pidfd_open(pid)
    try:
        (group / "memory.limit_in_bytes").write_text("4096")
        (group / "cgroup.procs").write_text(str(pid))
        yield handle
    finally:
        os.close(handle)
        (group / "memory.limit_in_bytes").write_text("-1")
        for left in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (MEMORY / "cgroup.procs").write_text(left)

        def gone() -> bool:
            with contextlib.suppress(OSError):
                group.rmdir()
            return not group.exists()

        wait_for(gone, "the group of the starved is empty")


def dead(handle: int) -> bool:
    return bool(select.select([handle], [], [], 0)[0])


@pytest.fixture
def sleeper(served: World) -> Iterator[World]:
    served.run("sleeps", "sleep", "1000")
    settled(served)
    yield served
    assert served.ask("DELETE", "/containers/sleeps?force=1")[0] == 204
    settled(served)


@starved_only
def test_a_daemon_without_memory_is_ended_and_the_next_one_goes_on(sleeper: World) -> None:
    before = sleeper.state("sleeps")
    with starved(sleeper.process.pid) as handle:

        def asked() -> bool:
            with contextlib.suppress(OSError):
                sleeper.ask("POST", "/containers/create", {"Image": "x" * (1 << 20)})
            return dead(handle)

        wait_for(asked, "the kernel ends the daemon")
    assert sleeper.process.wait(30) == -9
    sleeper.start()
    after = sleeper.state("sleeps")
    assert (after["Pid"], after["StartedAt"]) == (before["Pid"], before["StartedAt"])


@starved_only
@pytest.mark.parametrize("victim", ["zygote", "seed"])
def test_without_memory_for_those_who_start_containers_others_do_it(sleeper: World, victim: str) -> None:
    (pid,) = processes(sleeper.root)[victim]
    with starved(pid) as handle:

        def started() -> bool:
            # The kernel may choose those that it has forked first, and again those of the second try.
            assert started_once(sleeper) in (204, 500)
            return dead(handle)

        wait_for(started, "the kernel ends it")
    assert started_once(sleeper) == 204
    assert sleeper.state("sleeps")["Running"]


def started_once(served: World) -> int:
    assert served.create("more", "true")[0] == 201
    status = served.ask("POST", "/containers/more/start")[0]
    assert served.ask("DELETE", "/containers/more?force=1")[0] == 204
    return status


@starved_only
def test_a_keeper_without_memory_takes_its_container_along_and_says_so(sleeper: World) -> None:
    pid = sleeper.state("sleeps")["Pid"]
    keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    with starved(keeper) as handle:

        def asked() -> bool:
            sleeper.ask("POST", "/containers/sleeps/kill?signal=URG")
            return dead(handle)

        wait_for(asked, "the kernel ends the keeper")
    assert sleeper.ask("POST", "/containers/sleeps/wait")[1]["StatusCode"] == 137
    assert sleeper.state("sleeps")["Error"] == "the container's keeper process was killed"


def test_garbage_in_leases_and_for_a_keepers_socket_is_got_over(sleeper: World) -> None:
    """What was leased is leased anew; a container whose keeper cannot be asked is ended."""
    served = sleeper
    mine = [path for path in Path(BLOCKS).glob("*.json") if owner(path) == str(served.data)]
    bridge = bridge_name(str(served.data))
    assert mine
    identity = next(iter(served.containers()))
    served.kill()
    for path in (*mine, Path(NETWORKS, f"{bridge}.json")):
        path.write_bytes(b"\0garbage{")
    door = served.root / "run/containers" / identity / "keeper.sock"
    door.unlink()
    door.write_bytes(b"garbage")
    served.start()
    state = served.state("sleeps")
    assert (state["Running"], state["ExitCode"]) == (False, 137)
    assert served.ask("POST", "/containers/sleeps/start")[0] == 204
    settled(served)
    assert json.loads(Path(NETWORKS, f"{bridge}.json").read_text())["subnet"]
    for path in mine:
        if owner(path) is None:
            path.unlink()


def owner(path: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads(path.read_bytes())["owner"])
    return None
