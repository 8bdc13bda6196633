"""``top``: what is kept of what ps prints."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from tests.fakes.engine import World

from sampan.engine.processes import Processes, Table, inside, parse
from sampan.errors import Conflict, InvalidArgument, NotFound

OUTPUT = (
    "UID          PID    PPID CMD\n"
    "root           1       0 /sbin/init\n"
    "root          42       1 sleep  1000\n"
    "-              -       - -\n"
    "app           43      42 \n"
    "app           44      42 sh -c 'a b'\n"
)


def processes(world: World, members: Sequence[int]) -> Processes:
    return Processes(store=world.store, events=world.events, members=lambda _: members)


def test_lines_of_the_container_are_kept_with_the_command_in_one_cell() -> None:
    table = parse(OUTPUT, frozenset((42, 44)))
    assert table.titles == ("UID", "PID", "PPID", "CMD")
    assert table.rows == (
        ("root", "42", "1", "sleep 1000"),
        ("-", "-", "-", "-"),  # a thread of the line above
        ("app", "44", "42", "sh -c 'a b'"),
    )


def test_a_command_that_looks_like_a_pid_fools_nobody() -> None:
    output = "COMMAND PID\nevil 42 1\nx 42\n"
    assert parse(output, frozenset((42,))).rows == (("evil", "42 1"), ("x", "42"))


@pytest.mark.parametrize(
    ("output", "words"),
    [("COMMAND\nx\n", "Couldn't find PID field in ps output"), ("PID\nx\n", "Unexpected pid 'x'")],
)
def test_what_has_no_pids_is_refused(output: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse(output, frozenset())


def test_owners_are_shown_as_they_are_inside() -> None:
    titles = ("UID", "USER", "GID", "PID")
    table = Table(titles=titles, rows=(("1000", "1007", "1000", "1001"), ("root", "5000", "999", "1")))
    assert inside(table, 1000, 100, numeric=False).rows == (
        ("root", "7" if not _known(7) else _known(7), "0", "1001"),
        ("root", "5000", "999", "1"),
    )
    assert inside(table, 1000, 100, numeric=True).rows[0][0] == "0"


def _known(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


async def test_this_process_as_a_container(world: World) -> None:
    await world.run("sleep", name="web")
    events = world.record_events()
    mine = processes(world, [os.getpid()])
    table = await mine.top("web", "-o pid,comm")
    assert table.titles == ("PID", "COMMAND")
    assert [row[0] for row in table.rows] == [str(os.getpid())]
    assert (await mine.top("web", "-f -H")).rows[0][1] == str(os.getpid())
    assert "UID" in (await mine.top("web")).titles
    assert await events.told() == ["top", "top", "top"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("; ls", "ps: error: garbage option"),
        ("-o comm", "Couldn't find PID field in ps output"),
        ("-o pid,nope", 'ps: error: unknown user-defined format specifier "nope"'),
        ("axo ppid=PID,comm", 'specifying "ppid=PID,comm" is not allowed'),
        ("-o \0", "ps: embedded null byte"),
    ],
)
async def test_options_that_ps_does_not_take(world: World, options: str, words: str) -> None:
    await world.run("sleep", name="web")
    with pytest.raises(InvalidArgument) as refused:
        await processes(world, [os.getpid()]).top("web", options)
    assert words in str(refused.value)


async def test_only_what_runs_has_processes(world: World) -> None:
    created = await world.create("sleep", name="web")
    with pytest.raises(Conflict, match=f"container {created} is not running"):
        await processes(world, []).top("web")
    with pytest.raises(NotFound, match="No such container: nope"):
        await processes(world, []).top("nope")
