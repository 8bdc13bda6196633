"""``stats``: what containers use, as a table that is drawn anew every second.

Each round asks for one sample of each container over one connection; rates come from the sample before, which
is kept here. Arithmetic as in Docker's client: a CPU's share of all CPUs' time, times the number of CPUs;
memory without the page cache that can be dropped.
"""

from __future__ import annotations

import time

from sampan.cli.command import FORMAT_HELP, Command, Options
from sampan.cli.context import Context, write
from sampan.cli.human import binary_size, size
from sampan.cli.listing import Fields, render
from sampan.client.api import ApiError, segment
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

DEFAULT = (
    "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
)

_INTERVAL = 1.0  # seconds between two rounds
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\033[H", "\033[K", "\033[J"
_NOTHING = "--"


class Usage(Fields):
    """A row of ``stats``. ``sample`` is None for a container that is gone."""

    kind = "*container.statsContext"
    columns: ClassVar[dict[str, str]] = {
        "BlockIO": "BLOCK I/O",
        "CPUPerc": "CPU %",
        "Container": "CONTAINER",
        "ID": "CONTAINER ID",
        "MemPerc": "MEM %",
        "MemUsage": "MEM USAGE / LIMIT",
        "Name": "NAME",
        "NetIO": "NET I/O",
        "PIDs": "PIDS",
    }
    __slots__ = ("_before", "_given", "_sample", "_truncate")

    def __init__(
        self,
        given: str,
        sample: dict[str, Any] | None,
        before: dict[str, Any] | None,
        *,
        truncate: bool,
    ) -> None:
        self._given, self._sample, self._before, self._truncate = given, sample, before, truncate

    def Container(self) -> str:
        return self._given

    def Name(self) -> str:
        name: str = (self._sample or {}).get("name") or ""
        return name[1:] if len(name) > 1 else _NOTHING

    def ID(self) -> str:
        identity: str = (self._sample or {}).get("id") or ""
        return identity[:12] if self._truncate else identity

    def CPUPerc(self) -> str:
        if self._sample is None:
            return _NOTHING
        return f"{cpu_percent(self._sample, self._before):.2f}%"

    def MemUsage(self) -> str:
        if self._sample is None:
            return f"{_NOTHING} / {_NOTHING}"
        memory = self._sample.get("memory_stats") or {}
        return f"{binary_size(used_memory(memory))} / {binary_size(memory.get('limit') or 0)}"

    def MemPerc(self) -> str:
        if self._sample is None:
            return _NOTHING
        memory = self._sample.get("memory_stats") or {}
        limit = memory.get("limit") or 0
        return f"{used_memory(memory) * 100 / limit if limit else 0.0:.2f}%"

    def NetIO(self) -> str:
        if self._sample is None:
            return _NOTHING
        networks = (self._sample.get("networks") or {}).values()
        received = sum(network.get("rx_bytes", 0) for network in networks)
        return f"{size(received, 3)} / {size(sum(one.get('tx_bytes', 0) for one in networks), 3)}"

    def BlockIO(self) -> str:
        if self._sample is None:
            return _NOTHING
        done = (self._sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
        return f"{size(_moved(done, 'r'), 3)} / {size(_moved(done, 'w'), 3)}"

    def PIDs(self) -> str:
        if self._sample is None:
            return _NOTHING
        return str((self._sample.get("pids_stats") or {}).get("current", 0))


def _moved(entries: Any, letter: str) -> int:
    return sum(entry["value"] for entry in entries if entry["op"][:1].lower() == letter)


def cpu_percent(sample: dict[str, Any], before: dict[str, Any] | None) -> float:
    """Percent of one CPU between two samples; since the boot without the one before."""
    now, then = sample.get("cpu_stats") or {}, (before or {}).get("cpu_stats") or {}
    each = now.get("cpu_usage", {}).get("percpu_usage") or ()
    used = now.get("cpu_usage", {}).get("total_usage", 0) - then.get("cpu_usage", {}).get("total_usage", 0)
    all_time = now.get("system_cpu_usage", 0) - then.get("system_cpu_usage", 0)
    if used <= 0 or all_time <= 0:
        return 0.0
    return float(used / all_time * (now.get("online_cpus") or len(each)) * 100)


def used_memory(memory: dict[str, Any]) -> int:
    """Bytes in use, without the page cache that nobody has used lately."""
    usage: int = memory.get("usage") or 0
    details = memory.get("stats") or {}
    cache: int = details.get("total_inactive_file", details.get("inactive_file", 0))
    return usage - cache if cache < usage else usage


class _Table:
    """The containers that are shown and their last two samples."""

    def __init__(self, context: Context, options: Options, names: list[str]) -> None:
        self._client = context.client
        self._all: bool = options["all"]
        self._truncate = not options["no-trunc"]
        self._named = names
        self._last: dict[str, dict[str, Any]] = {}

    def _shown(self) -> list[str]:
        if self._named:
            return self._named
        query = {"all": "1"} if self._all else {}
        found = self._client.call("GET", "/containers/json", query) or []
        return [summary["Id"] if not self._truncate else summary["Id"][:12] for summary in found]

    def round(self, *, first: bool) -> list[Usage]:
        """Ask for a sample of each. In the first round a name that nothing has is a Failure."""
        rows, last, errors = [], {}, []
        for name in self._shown():
            try:
                sample = self._sample(name)
            except ApiError as error:
                if error.status != 404:
                    raise
                if first and self._named:
                    errors.append(str(error))
                elif self._named:
                    rows.append(Usage(name, None, None, truncate=self._truncate))
                continue
            rows.append(Usage(name, sample, self._last.get(name), truncate=self._truncate))
            last[name] = sample
        self._last = last
        if errors:
            raise Failure("\n".join(errors))
        return rows

    def _sample(self, name: str) -> dict[str, Any]:
        query = {"stream": "false", "one-shot": "true"}
        found: dict[str, Any] = self._client.call("GET", f"/containers/{segment(name)}/stats", query)
        return found


def _stats(context: Context, options: Options, arguments: list[str]) -> int:
    template = options["format"]
    template = DEFAULT if template in ("", "table") else template
    table = _Table(context, options, arguments)
    once = options["no-stream"]
    due = time.monotonic()
    rows = table.round(first=True)
    if once and rows:
        time.sleep(_INTERVAL)
        rows = table.round(first=False)
    while not once:
        write(1, _HOME)
        render(rows, Usage, template, line_end=_CLEAR_LINE)
        write(1, _CLEAR_BELOW)
        due += _INTERVAL
        time.sleep(max(0.0, due - time.monotonic()))
        rows = table.round(first=False)
    render(rows, Usage, template)
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "stats",
        "[OPTIONS] [CONTAINER...]",
        "Show what containers use, as it changes",
        _stats,
        flags=(
            ("a", "all", "bool", "Show stopped containers too"),
            ("", "format", "string", FORMAT_HELP),
            ("", "no-stream", "bool", "Show one measurement and end"),
            ("", "no-trunc", "bool", "Do not shorten the output"),
        ),
        aliases=("container stats", "stats"),
    ),
)
