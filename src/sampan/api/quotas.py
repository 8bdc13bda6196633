"""How much a group may have at once, behind its door: the guard that counts.

Theory: what carries the group's label counts, whether it runs or not, and so does what is being made. Of
memory, processors and processes it is the containers' own limits that are added up: under such a quota a
container has to have the limit, and cannot lose it. Nothing is taken from what is there already.

Law: two requests at once do not both get the last of something. Who counts counts what is under way first,
then what is there: what is finished meanwhile may count twice, never not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampan.api.confined import document, field
from sampan.api.doors import route
from sampan.api.responses import Answer
from sampan.engine.model import Filters, ListQuery
from sampan.engine.model.container import OWNER
from sampan.errors import Forbidden, InvalidArgument

if TYPE_CHECKING:
    from sampan.api.request import Request
    from sampan.engine.facade import Engine

_BILLION = 10**9
_PERIOD = 100_000  # µs; the kernel's own, of a quota that names none

NAMES = ("containers", "volumes", "networks", "memory", "cpus", "pids")
"""What can be limited. ``memory`` is in bytes, ``cpus`` in billionths of a core."""

Amounts = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Need:
    """A setting of a container's that a quota is about, and the flag that it has at the command line."""

    key: str
    flag: str


_NEEDS = {
    "memory": _Need(key="memory", flag="--memory"),
    "cpus": _Need(key="nanocpus", flag="--cpus"),
    "pids": _Need(key="pidslimit", flag="--pids-limit"),
}


class Quotas:
    """A guard for the group ``owner``, after `Confined`, which has labelled what is asked for."""

    def __init__(self, owner: str, most: Amounts, engine: Engine) -> None:
        self._owner = owner
        self._most = most
        self._engine = engine
        self._counting = asyncio.Lock()
        self._pending: dict[int, Amounts] = {}
        self._asked: Mapping[tuple[str, str], Callable[[Request], Awaitable[Amounts]]] = {
            ("POST", "/containers/create"): self._container,
            ("POST", "/containers/{name}/update"): self._update,
            ("POST", "/volumes/create"): self._volume,
            ("POST", "/networks/create"): self._network,
        }

    async def before(self, request: Request) -> None:
        asks = self._asked.get((request.method, route(request)))
        if asks is None:
            return
        try:
            wanted = await asks(request)
        except (TypeError, AttributeError):
            raise InvalidArgument("invalid JSON: a value is not of the type that belongs there") from None
        async with self._counting:
            under_way = _sum(self._pending.values())
            there = await self._there(without=request.name)
            for name, amount in wanted.items():
                used = under_way.get(name, 0) + there.get(name, 0)
                if amount and name in self._most and used + amount > self._most[name]:
                    raise Forbidden(
                        f"this socket's quota of {name} is {shown(name, self._most[name])}, and "
                        f"{shown(name, used)} of it {'is' if used == 1 else 'are'} in use"
                    )
            self._pending[request.number] = wanted

    async def after(self, request: Request, answer: Answer) -> Answer:
        self._pending.pop(request.number, None)
        return answer

    # What is asked for

    async def _container(self, request: Request) -> Amounts:
        body = await document(request)
        host = field(body, "hostconfig") or {}
        wanted = {"containers": 1, "volumes": self._anonymous(body, host)}
        for name, need in _NEEDS.items():
            if name in self._most:
                wanted[name] = _limit(name, host)
                if wanted[name] <= 0:
                    raise Forbidden(f"this socket has a quota of {name}: use {need.flag}")
        if "memory" in self._most and field(host, "memoryswap") == -1:
            raise Forbidden("this socket has a quota of memory: swap cannot be unlimited")
        return wanted

    @staticmethod
    def _anonymous(body: Mapping[str, Any], host: Mapping[str, Any]) -> int:
        """How many volumes are made on the way, as far as the request says: not those of the image."""
        mounts = [one for one in field(host, "mounts") or () if field(one, "type") == "volume"]
        return len(field(body, "volumes") or ()) + sum(not field(one, "source") for one in mounts)

    async def _update(self, request: Request) -> Amounts:
        """All that the container is to have: what it has is not counted beside it."""
        body = await document(request)
        host = self._engine.containers.get(request.name).host
        has = {"memory": host.memory, "nanocpus": _cores(host), "pidslimit": host.pids_limit or 0}
        wanted: dict[str, int] = {}
        for name, need in _NEEDS.items():
            if name in self._most:
                given = _limit(name, body)
                wanted[name] = given or has[need.key]
                if given < 0:
                    raise Forbidden(f"this socket has a quota of {name}: there has to be a limit")
        if "memory" in self._most and field(body, "memoryswap") == -1:
            raise Forbidden("this socket has a quota of memory: swap cannot be unlimited")
        return wanted

    async def _volume(self, _request: Request) -> Amounts:
        return {"volumes": 1}

    async def _network(self, _request: Request) -> Amounts:
        return {"networks": 1}

    # What is there

    async def _there(self, *, without: str) -> Amounts:
        filters = Filters({"label": (f"{OWNER}={self._owner}",)})
        found = await self._engine.containers.list(ListQuery(all=True, filters=filters))
        others = [container.host for container in found if container.id != without]
        return {
            "containers": len(found),
            "volumes": len(self._engine.volumes.list(filters)),
            "networks": len(self._engine.networks.list(filters)),
            "memory": sum(host.memory for host in others),
            "cpus": sum(map(_cores, others)),
            "pids": sum(max(host.pids_limit or 0, 0) for host in others),
        }


def _limit(name: str, settings: Mapping[str, Any]) -> int:
    """The limit that the settings give; 0 for none, negative for none by name."""
    if name == "cpus":
        quota = _whole(settings, "cpuquota")
        period = _whole(settings, "cpuperiod") or _PERIOD
        return _whole(settings, "nanocpus") or quota * _BILLION // max(period, 1)
    return _whole(settings, _NEEDS[name].key)


def _whole(settings: Mapping[str, Any], key: str) -> int:
    found = field(settings, key)
    if found is None:
        return 0
    if isinstance(found, bool) or not isinstance(found, int):
        raise InvalidArgument(f"invalid JSON: {key} has to be a whole number")
    return found


def _cores(host: Any) -> int:
    """Billionths of a core that a container may use; 0 for any."""
    if host.nano_cpus:
        return int(host.nano_cpus)
    return int(max(host.cpu_quota, 0) * _BILLION // (host.cpu_period or _PERIOD))


def _sum(amounts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in amounts:
        for name, amount in one.items():
            total[name] = total.get(name, 0) + amount
    return total


def shown(name: str, amount: int) -> str:
    """As a person reads it."""
    if name == "memory":
        return f"{amount / (1 << 20):g} MiB"
    return f"{amount / _BILLION:g}" if name == "cpus" else str(amount)
