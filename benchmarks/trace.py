#!/usr/bin/env python3
"""Where the time of one command goes: all processes that work for it, from the first byte to the last.

    benchmarks/trace.py --socket /run/sampan/sampan.sock [--runs 9] [--svg FILE] -- COMMAND [ARGUMENT...]

The kernel's tracer (tracefs(7): system calls, forks, programs, exits) watches the command, the daemon, the
zygote and whatever they start: no process is stopped or changed for it, but each system call costs some
tenths of a microsecond. Of the runs the one with the median time is shown: what each process did between two
waits, what the longest system calls of that were, and, in the file of --svg, a picture. The time without
tracing is measured beside it. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from sampan.spec import syscalls

_WAITS = frozenset(
    (
        *("epoll_wait", "epoll_pwait", "poll", "ppoll", "select", "pselect6", "recvmsg", "recvfrom", "read"),
        *("wait4", "waitid", "futex", "accept4", "nanosleep", "clock_nanosleep", "rt_sigtimedwait"),
    )
)
_WAIT = 0.00015  # seconds: a shorter one is work
_NAMES = {number: name for name, number in syscalls.numbers("x86_64").items()}
_LINE = re.compile(r"^\s*(.+)-(\d+)\s+\[\d+\]\s+\S+\s+(\d+\.\d+): (\w+): (.*)$")
_EVENTS = (
    *("raw_syscalls/sys_enter", "raw_syscalls/sys_exit"),
    *("sched/sched_process_fork", "sched/sched_process_exec", "sched/sched_process_exit"),
)


@dataclass(slots=True)
class Call:
    """A system call: when it began and ended, in seconds."""

    name: str
    start: float
    end: float


@dataclass(slots=True)
class Process:
    """A process or thread that took part. ``born`` and ``gone`` are seconds, or None."""

    pid: int
    name: str
    born: float | None = None
    parent: int = 0
    gone: float | None = None
    execs: list[tuple[float, str]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a process did between two waits; ``calls`` are the names and seconds of the longest."""

    process: Process
    start: float
    end: float
    count: int
    calls: tuple[tuple[str, float], ...]


class Tracer:
    """A buffer of its own in tracefs, taken away at the end."""

    def __init__(self, mount: str) -> None:
        self._place = f"{mount}/instances/sampan-{os.getpid()}"
        os.mkdir(self._place)
        self._write("trace_clock", "mono")
        self._write("buffer_size_kb", "16384")
        self._write("options/event-fork", "1")

    def watch(self, pids: Sequence[int]) -> None:
        self._write("set_event_pid", " ".join(map(str, pids)))
        self._write("trace", "")
        for event in _EVENTS:
            self._write(f"events/{event}/enable", "1")

    def collected(self) -> str:
        for event in _EVENTS:
            self._write(f"events/{event}/enable", "0")
        with open(f"{self._place}/trace", errors="replace") as file:
            return file.read()

    def close(self) -> None:
        os.rmdir(self._place)

    def _write(self, name: str, value: str) -> None:
        with open(f"{self._place}/{name}", "w") as file:
            file.write(value)


@contextlib.contextmanager
def tracer() -> Iterator[Tracer]:
    with tempfile.TemporaryDirectory() as mount:
        subprocess.run(["mount", "-t", "tracefs", "tracefs", mount], check=True)
        try:
            made = Tracer(mount)
            try:
                yield made
            finally:
                made.close()
        finally:
            subprocess.run(["umount", mount], check=True)


def parse(text: str) -> dict[int, Process]:
    """The processes of a trace by their pid, their calls in order."""
    found: dict[int, Process] = {}
    open_calls: dict[int, tuple[str, float]] = {}
    for line in text.splitlines():
        if (match := _LINE.match(line)) is None:
            continue
        comm, pid, stamp, event, rest = match[1], int(match[2]), float(match[3]), match[4], match[5]
        process = found.setdefault(pid, Process(pid=pid, name=comm))
        if event == "sys_enter":
            number = int(rest.split()[1])
            open_calls[pid] = (_NAMES.get(number, str(number)), stamp)
        elif event == "sys_exit" and pid in open_calls:
            name, start = open_calls.pop(pid)
            process.calls.append(Call(name, start, stamp))
        elif event == "sched_process_fork":
            child = int(rest.rpartition("child_pid=")[2])
            born = found.setdefault(child, Process(pid=child, name=comm))
            born.born, born.parent = stamp, pid
        elif event == "sched_process_exec":
            process.execs.append((stamp, rest.partition("filename=")[2].split()[0]))
        elif event == "sched_process_exit":
            process.gone = stamp
    return found


def stretches(process: Process, start: float, end: float) -> Iterator[Stretch]:
    """What it did between ``start`` and ``end``, cut at every wait."""
    begin = process.born or (process.calls[0].start if process.calls else start)
    taken: dict[str, float] = {}
    count = 0
    for call in process.calls:
        if call.name in _WAITS and call.end - call.start >= _WAIT:
            if count or process.born == begin:
                yield Stretch(process, begin, call.start, count, _longest(taken))
            begin, count = call.end, 0
            taken = {}
        else:
            taken[call.name] = taken.get(call.name, 0.0) + call.end - call.start
            count += 1
    last = process.gone or (process.calls[-1].end if process.calls else begin)
    if count:
        yield Stretch(process, begin, min(last, end), count, _longest(taken))


def _longest(taken: dict[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(taken.items(), key=lambda item: -item[1])[:4])


def roles(socket_path: str) -> dict[int, str]:
    """The engine's processes that are there before the command, by pid."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(socket_path)
        daemon = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    found = {int(task): "daemon" for task in os.listdir(f"/proc/{daemon}/task")}
    words = _words(daemon)
    root = words[words.index("--exec-root") + 1] if "--exec-root" in words else os.path.dirname(socket_path)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _words(int(entry))[:1] == [f"sampan-zygote {root}"]:
            found[int(entry)] = "zygote"
            for child in _children(int(entry)):
                attends = _words(child)[:1] == [f"sampan-exec {root}"]
                found[child] = "attendant" if attends else "keeper"
                found.update(dict.fromkeys(_children(child), "program" if attends else "launcher"))
    return found


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]


def _words(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def once(command: Sequence[str], trace: Tracer | None, engine: dict[int, str]) -> tuple[float, str, int]:
    """(seconds, trace, pid) of one run. The child waits until it is watched."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(ready, 1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.execvp(command[0], list(command))
    os.close(ready)
    if trace is not None:
        trace.watch([pid, *engine])
    start = time.monotonic()
    os.close(go)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - start
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{command[0]} ended with {os.waitstatus_to_exitcode(status)}")
    time.sleep(0.05)  # what goes on after the answer belongs to the picture
    return seconds, trace.collected() if trace is not None else "", pid


def named(processes: dict[int, Process], engine: dict[int, str], client: int) -> None:
    """Give every process the name of its part."""
    for pid, process in processes.items():
        if pid == client:
            process.name = "client"
        elif pid in engine:
            process.name = engine[pid]
        elif (
            client in (process.parent, getattr(processes.get(process.parent), "parent", 0))
            and not process.execs
        ):
            process.name = "client"  # a thread of it
        elif process.execs:
            process.name = os.path.basename(process.execs[-1][1])
        else:
            process.name = process.name.removeprefix("sampan-")


def report(found: list[Stretch], start: float) -> None:
    print("| from ms | ms | who | system calls | the longest of them (ms) |\n|---|---|---|---|---|")
    for each in found:
        longest = ", ".join(
            f"{name} {seconds * 1000:.2f}" for name, seconds in each.calls if seconds > 0.00005
        )
        who = f"{each.process.name} {each.process.pid}"
        span = f"{(each.start - start) * 1000:.2f} | {(each.end - each.start) * 1000:.2f}"
        print(f"| {span} | {who} | {each.count} | {longest} |")


_COLOURS = {
    "client": "#4c78a8",
    "daemon": "#f58518",
    "zygote": "#54a24b",
    "keeper": "#b279a2",
    "attendant": "#e45756",
}


def picture(found: list[Stretch], start: float, end: float) -> str:
    """An SVG: a row for each process, a bar for each stretch of work."""
    rows = list(dict.fromkeys(each.process.pid for each in found))
    names = {each.process.pid: each.process.name for each in found}
    scale, left, height = 1000.0 / (end - start), 150, 22
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + 1020}" height="{height * (len(rows) + 2)}" '
        'font-family="sans-serif" font-size="11">'
    ]
    for tick in range(int((end - start) * 1000) + 1):
        x = left + tick / 1000 * scale
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="16" y2="{height * (len(rows) + 1)}" stroke="#ddd"/>')
        if tick % 5 == 0:
            out.append(f'<text x="{x:.1f}" y="12">{tick} ms</text>')
    for place, pid in enumerate(rows):
        y = 20 + place * height
        out.append(f'<text x="4" y="{y + 13}">{escape(names[pid])} {pid}</text>')
        for each in found:
            if each.process.pid == pid:
                x, width = left + (each.start - start) * scale, max((each.end - each.start) * scale, 0.7)
                said = ", ".join(f"{name} {seconds * 1000:.2f}" for name, seconds in each.calls)
                colour = _COLOURS.get(names[pid], "#888")
                out.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="16" fill="{colour}">'
                    f"<title>{(each.end - each.start) * 1000:.2f} ms: {escape(said)}</title></rect>"
                )
    return "\n".join([*out, "</svg>"]) + "\n"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--socket", required=True)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--svg", default="")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    plain = [once(given.command, None, {})[0] for _ in range(given.runs)]
    runs = []
    with tracer() as trace:
        for _ in range(given.runs):
            engine = roles(given.socket)
            runs.append((*once(given.command, trace, engine), engine))
    runs.sort(key=lambda run: run[0])
    seconds, text, client, engine = runs[len(runs) // 2]
    processes = parse(text)
    named(processes, engine, client)
    start = min(process.execs[0][0] for process in processes.values() if process.execs)
    end = start + seconds
    found = [each for process in processes.values() for each in stretches(process, start, end + 0.05)]
    found = sorted((each for each in found if each.end > start), key=lambda each: each.start)
    print(
        f"{' '.join(given.command)}: {statistics.median(plain) * 1000:.1f} ms ({given.runs} runs, "
        f"{min(plain) * 1000:.1f} to {max(plain) * 1000:.1f}); traced {seconds * 1000:.1f} ms\n"
    )
    report(found, start)
    if given.svg:
        with open(given.svg, "w") as file:
            file.write(picture(found, start, max(end, max(each.end for each in found))))


if __name__ == "__main__":
    main(sys.argv[1:])
