"""``top``: the host's ``ps``, of which only the lines of a container's processes are kept.

Sources: the behaviour of dockerd: ``-ef`` by default; options are separated by blanks and go to no shell; the
pid column must be there under its own name. The processes are those of the container's cgroup, so those of
execs are among them. Owners are shown as they are inside: the ids that a user namespace has on the host are
nobody's to know, and Docker's default has none.
"""

from __future__ import annotations

import asyncio
import grp
import pwd
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.engine.model import Status
from sampan.errors import Conflict, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from sampan.engine.events import Events
    from sampan.engine.store import ContainerStore

DEFAULT = "-ef"

_RENAMED = re.compile(r"\s+(\S+)=\s*(PID\S*)")  # a column that would be called PID and is another
_CUT = re.compile(r"\d+\+")
_NUMERIC_UID = re.compile(r"\buid\b")
_BLANKS = re.compile(r"[ \t\n\v\f\r]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What ``ps`` printed: a row has as many cells as there are titles."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Processes:
    """``members`` gives the processes of a cgroup; it blocks for a moment."""

    def __init__(
        self, *, store: ContainerStore, events: Events, members: Callable[[str], Sequence[int]]
    ) -> None:
        self._store = store
        self._events = events
        self._members = members

    async def top(self, ref: str, options: str = "") -> Table:
        """The container's processes as ``ps OPTIONS`` shows them. Conflict when it does not run."""
        options = options or DEFAULT
        for name, title in _RENAMED.findall(options):
            if name != "pid":
                raise InvalidArgument(f'specifying "{name}={title}" is not allowed')
        instance = self._store.find(ref)
        task = instance.task
        if instance.state.status is Status.RESTARTING:
            raise Conflict(f"container {instance.id} is restarting, wait until the container is running")
        if task is None or not instance.state.running:
            raise Conflict(f"container {instance.id} is not running")
        pids = await asyncio.to_thread(self._members, task.cgroup)
        table = parse(await _ps(options, pids), frozenset(pids))
        state = instance.state
        if state.id_base:
            table = inside(table, state.id_base, state.id_span, numeric=bool(_NUMERIC_UID.search(options)))
        self._events.container(instance.container, "top")
        return table


async def _ps(options: str, pids: Sequence[int]) -> str:
    arguments = options.split(" ")
    listed = ",".join(map(str, pids))
    code, out, said = await _run([*arguments, f"-q{listed}"])
    if code != 0 and "other selection" not in said:
        # What is sorted or drawn as a forest takes another list.
        code, out, _ = await _run([*arguments, f"-p{listed}"])
    if code != 0:
        code, out, said = await _run(arguments)  # what fails alone tells why
    if code != 0:
        raise InvalidArgument("ps: " + (said.partition("\n")[0] or f"exit status {code}"))
    return out


async def _run(arguments: Sequence[str]) -> tuple[int, str, str]:
    """(exit code, output, messages) of ``ps``."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            "ps", *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
    except FileNotFoundError:
        raise Unavailable('ps: exec: "ps": executable file not found in $PATH') from None
    except (OSError, ValueError) as error:  # too long, or with a zero byte
        raise InvalidArgument(f"ps: {error}") from error
    try:
        out, said = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return process.returncode or 0, out.decode(errors="replace"), said.decode(errors="replace")


def parse(output: str, pids: frozenset[int]) -> Table:
    """The lines of ``output`` whose pid is one of ``pids``, and those of their threads."""
    head, *lines = output.split("\n")
    titles = _cells(head)
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    ours = False
    for line in lines:
        cells = _cells(line)
        if len(cells) <= column:
            continue
        pid = cells[column]
        if pid != "-":  # a thread's line: it belongs to the process above
            if not pid.isdecimal():
                raise InvalidArgument(f"Unexpected pid '{pid}'")
            ours = int(pid) in pids
        if ours:
            last = len(titles) - 1
            rows.append((*cells[:last], " ".join(cells[last:])))
    return Table(titles=tuple(titles), rows=tuple(rows))


def inside(table: Table, base: int, span: int, *, numeric: bool) -> Table:
    """The table with the ids of a user namespace as they are inside, so that root is root.

    ``numeric``: the column UID holds numbers; ``ps -f`` has names in it.
    """
    pids = table.titles.index("PID")

    def shown(cell: str, title: str, pid: str) -> str:
        owner = _OWNERS.get(title)
        if owner is not None and _CUT.fullmatch(cell):
            cell = _id_of(pid, *owner[1:]) or cell
        if not (cell.isdecimal() and base <= int(cell) < base + span):
            return cell
        number = int(cell) - base
        if owner is not None and not (numeric and title == "UID"):
            return owner[0](number)
        return str(number) if owner is not None or title in _IDS else cell

    rows = tuple(
        tuple(shown(cell, title, row[pids]) for cell, title in zip(row, table.titles, strict=True))
        for row in table.rows
    )
    return Table(titles=table.titles, rows=rows)


def _id_of(pid: str, line: str, column: int) -> str:
    """An id of a process from its status; ps cuts what is longer than its column."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for text in file:
                if text.startswith(line):
                    return text.split()[column]
    except OSError:
        pass  # it has ended
    return ""


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except (KeyError, OverflowError):
        return str(number)


_OWNERS: dict[str, tuple[Callable[[int], str], str, int]] = {
    "UID": (_user, "Uid:", 2),
    "USER": (_user, "Uid:", 2),
    "EUSER": (_user, "Uid:", 2),
    "RUSER": (_user, "Uid:", 1),
    "SUSER": (_user, "Uid:", 3),
    "FUSER": (_user, "Uid:", 4),
    "GROUP": (_group, "Gid:", 2),
    "EGROUP": (_group, "Gid:", 2),
    "RGROUP": (_group, "Gid:", 1),
    "SGROUP": (_group, "Gid:", 3),
    "FGROUP": (_group, "Gid:", 4),
}
"""Columns of names: how a number becomes one, and where /proc/PID/status has the number."""
_IDS = frozenset(("EUID", "RUID", "SUID", "FUID", "GID", "EGID", "RGID", "SGID", "FGID"))


def _cells(line: str) -> list[str]:
    """Words between ASCII blanks: others may be part of a command."""
    return [cell for cell in _BLANKS.split(line) if cell]
