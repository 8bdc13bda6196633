"""Who is held to an egress policy on this host, what the names of each were pinned to, and what was refused.

Laws:
- A container is held before it is plugged in, and until its addresses are given back.
- A name opens what it was resolved to for as long as the container was told, and ``_GRACE`` longer: a program
  that keeps an answer for its time to live finds the way open. It opens nothing that is not somewhere else:
  no loopback, no link-local address, no network of this engine; the host's own addresses are kept out by the
  rules (``egressrules.py``).
- The kernel holds the rules and the pins, so they stand while no daemon runs; a new daemon reads the pins
  back. What somebody flushes is put back, pins included.
- Without nf_tables' bridge family, or whatever else the rules need, nothing is guarded and ``hold`` raises: a
  container does not run with less than it was to be held to.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from sampan.errors import Unavailable
from sampan.linux import conntrack
from sampan.linux import nfactions as act
from sampan.linux import nfnetlink as nft
from sampan.linux.netlink import Request
from sampan.linux.nflog import Listener, Logged
from sampan.network.egresspolicy import Address, Policy, may_lead_to
from sampan.network.egressrules import LOGGED_BYTES, Guard, Interface, Pin, Rules
from sampan.sandbox import interfaces

__all__ = ["EgressRules", "Gate", "Interface", "Policy", "Refusal"]

logger = logging.getLogger(__name__)

_GRACE = 60.0
_SHORTEST, _LONGEST = 5, 3600  # seconds for which a container is told that an answer holds
_MOST_PINS = 4096
_MOST_REMEMBERED, _AGAIN_AFTER = 256, 1.0  # the same refusal is told once in so many seconds
_EACH_SECOND, _AT_ONCE = 5.0, 20.0  # names of one container that are told to have been refused
_FIRST_GROUP, _GROUPS = 20_000, 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a container was refused: a connection, or to look up ``name``."""

    container_id: str
    protocol: str = ""
    address: str = ""
    port: int = 0
    name: str = ""


@dataclass(slots=True)
class _Held:
    guard: Guard
    pins: dict[Pin, float] = field(default_factory=dict)  # when each ends, by the monotonic clock
    told: OrderedDict[Refusal, float] = field(default_factory=OrderedDict)
    budget: float = _AT_ONCE
    counted: float = 0.0


class Gate:
    """What ``Names`` asks on behalf of one container that is held to a policy."""

    def __init__(self, rules: EgressRules, container_id: str) -> None:
        self._rules = rules
        self._id = container_id

    def admits(self, name: str) -> bool:
        """Whether a name may be looked up."""
        held = self._rules.held.get(self._id)
        return held is not None and bool(held.guard.policy.ports_of(name))

    async def open(self, name: str, addresses: Sequence[bytes], ttl: int) -> tuple[list[bytes], int]:
        """Open what a name was resolved to: those of the addresses that it may lead to, and for how many
        seconds the container is to be told that they hold.

        OSError when they cannot be opened.
        """
        return await self._rules.open(self._id, name, addresses, ttl)

    def refuse(self, name: str) -> None:
        """Tell that a name was not to be looked up."""
        self._rules.tell(Refusal(container_id=self._id, name=name))


class EgressRules:
    """Of one instance. All methods are for the event loop's thread.

    ``own`` yields the subnets of this engine's networks.
    """

    def __init__(self, bridge: str, *, own: Callable[[], Iterable[str]] = tuple) -> None:
        self._table = f"{bridge}-egress"
        number = int.from_bytes(hashlib.sha256(self._table.encode()).digest()[:4], "big")
        self.group = _FIRST_GROUP + number % _GROUPS
        self._rules = Rules(self._table, self.group)
        self._own = own
        self.held: dict[str, _Held] = {}
        self.on_refusal: Callable[[Refusal], object] = lambda _: None
        self._changing = asyncio.Lock()
        self._standing = False
        self._listener: Listener | None = None

    # ---- holding -------------------------------------------------------------------------------------------

    async def hold(
        self, container_id: str, policy: Policy, plugs: Sequence[Interface], *, fresh: bool = False
    ) -> None:
        """Hold a container to a policy, in place of an earlier one. Unavailable if this host cannot.

        ``fresh``: it has yet to be started; what earlier holders of its addresses began is forgotten, so that
        it cannot go on with that.
        """
        async with self._changing:
            former = self.held.get(container_id)
            held = _Held(Guard(container_id=container_id, policy=policy, interfaces=tuple(plugs)))
            if former is not None:
                held.pins = former.pins
            changes = self._rules.put(held.guard, former.guard if former is not None else None)
            self.held[container_id] = held
            try:
                await self._change(changes)
                if fresh:
                    sources = [address.packed for _, address in held.guard.sources]
                    await asyncio.to_thread(conntrack.forget, sources)
            except OSError as error:
                if former is not None:
                    self.held[container_id] = former
                else:
                    del self.held[container_id]
                raise Unavailable(
                    f"this host cannot hold containers to an egress policy: {error.strerror or error}"
                ) from error
        self._listen()

    async def release(self, container_id: str, *, unplug: bool = False) -> None:
        """Hold it to nothing any more, ``unplug`` its interfaces first. Succeeds if it was not held."""
        if container_id not in self.held:
            return
        async with self._changing:
            held = self.held.pop(container_id, None)
            if held is None:
                return
            try:
                for one in held.guard.interfaces if unplug else ():
                    await asyncio.to_thread(interfaces.unplug, one.port)
                if self.held:
                    await self._change(self._rules.take(held.guard))
                else:
                    await asyncio.to_thread(self._remove)
                    self._standing = False
            except OSError as error:
                logger.warning("the egress rules of a container cannot be removed: %s", error)
        if not self.held:
            self._stop_listening()

    def gate(self, container_id: str) -> Gate | None:
        """By what a container asks for names; None for one that is not held."""
        return Gate(self, container_id) if container_id in self.held else None

    # ---- names ---------------------------------------------------------------------------------------------

    async def open(
        self, container_id: str, name: str, addresses: Sequence[bytes], ttl: int
    ) -> tuple[list[bytes], int]:
        """See ``Gate.open``."""
        own = [ip_network(subnet) for subnet in self._own()]
        accepted = [one for one in map(ip_address, addresses) if may_lead_to(one) and not _within(one, own)]
        seconds = min(max(ttl, _SHORTEST), _LONGEST)
        if accepted:
            async with self._changing:
                held = self.held.get(container_id)
                if held is None:
                    return [], seconds
                await self._pin(held, name, accepted, seconds + _GRACE)
        return [one.packed for one in accepted], seconds

    async def _pin(self, held: _Held, name: str, addresses: Iterable[Address], left: float) -> None:
        now = time.monotonic()
        held.pins = {pin: end for pin, end in held.pins.items() if end > now}
        wanted = {
            (address, port): left
            for address in addresses
            for port in held.guard.policy.ports_of(name)
            # One that was opened a moment ago is open long enough.
            if held.pins.get((address, port), 0.0) < now + left - _GRACE / 2
        }
        if not wanted:
            return
        if len(held.pins) + len(wanted) > _MOST_PINS:
            raise OSError(errno.ENOSPC, "too many addresses are open for this container's names")
        held.pins.update(dict.fromkeys(wanted, now + left))
        await self._change(self._rules.pin(held.guard, wanted))

    # ---- refusals ------------------------------------------------------------------------------------------

    def tell(self, refusal: Refusal) -> None:
        """Tell of a refusal, unless the same, or many others, were told just now."""
        held = self.held.get(refusal.container_id)
        if held is None:
            return
        now = time.monotonic()
        if now - held.told.get(refusal, -_AGAIN_AFTER) < _AGAIN_AFTER:
            return
        held.budget = min(_AT_ONCE, held.budget + (now - held.counted) * _EACH_SECOND)
        held.counted = now
        if held.budget < 1:
            return
        held.budget -= 1
        held.told[refusal] = now
        held.told.move_to_end(refusal)
        if len(held.told) > _MOST_REMEMBERED:
            held.told.popitem(last=False)
        self.on_refusal(refusal)

    def _listen(self) -> None:
        if self._listener is None:
            try:
                self._listener = Listener(self.group, size=LOGGED_BYTES)
            except OSError as error:
                logger.warning("refused connections will not be told: log group %s: %s", self.group, error)
                return
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._heard)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _heard(self) -> None:
        assert self._listener is not None
        for packet in self._listener.heard():
            self.tell(_refusal(packet))

    # ---- the tables ----------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Put the tables back if somebody removed them, or part of them."""
        if not self.held:
            return
        async with self._changing:
            try:
                if self.held and not await asyncio.to_thread(self._intact):
                    await asyncio.to_thread(self._build)
                    logger.info("the egress rules were put back")
            except OSError as error:
                logger.warning("the egress rules are missing: %s", error)

    async def settle(self) -> None:
        """Let the tables say what is held and nothing else, after every living container was held again."""
        async with self._changing:
            try:
                if self.held:
                    await asyncio.to_thread(self._build)
                else:
                    await asyncio.to_thread(self._remove)
                self._standing = bool(self.held)
            except OSError as error:
                logger.warning("the egress rules cannot be changed: %s", error)

    async def resume(self, container_id: str, policy: Policy, plugs: Sequence[Interface]) -> None:
        """``hold`` a container that has lived on, with what its names opened while another daemon ran."""
        guard = Guard(container_id=container_id, policy=policy, interfaces=tuple(plugs))
        with contextlib.suppress(OSError):
            now = time.monotonic()
            pins = await asyncio.to_thread(self._rules.pinned, guard) if policy.names else {}
            self.held[container_id] = _Held(guard, {pin: now + left for pin, left in pins.items()})
        # The tables that another daemon left are as good as ours.
        self._standing = True
        await self.hold(container_id, policy, plugs)

    def close(self) -> None:
        """Hear of no more refusals; the rules stay for whoever runs."""
        self._stop_listening()

    async def _change(self, changes: Sequence[Request]) -> None:
        """Carry the changes out; where the tables are not as they should be, make them anew."""
        if self._standing:
            try:
                await asyncio.to_thread(_commit, changes)
                return
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EEXIST, errno.EBUSY):
                    raise
        await asyncio.to_thread(self._build)
        self._standing = True

    def _build(self) -> None:
        now = time.monotonic()
        changes = self._rules.base()
        for held in self.held.values():
            changes += self._rules.put(held.guard)
            changes += self._rules.pin(
                held.guard, {p: end - now for p, end in held.pins.items() if end > now}
            )
        _commit(changes)

    def _remove(self) -> None:
        with nft.Firewall() as firewall:
            there = firewall.tables()
            ours = [family for family in (nft.INET, act.BRIDGE) if (family, self._table) in there]
            firewall.commit([nft.delete_table(family, self._table) for family in ours])

    def _intact(self) -> bool:
        with nft.Firewall() as firewall:
            try:
                found = [rule.chain for rule in firewall.rules(nft.INET, self._table)]
                ports = len(firewall.rules(act.BRIDGE, self._table, "prerouting"))
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return False
                raise
        chains = {held.guard.chain for held in self.held.values()}
        return (found.count("prerouting"), ports) == self._rules.base_size and chains <= set(found)


def _commit(changes: Sequence[Request]) -> None:
    with nft.Firewall() as firewall:
        firewall.commit(changes)


def _within(address: Address, networks: Iterable[object]) -> bool:
    return any(address in network for network in networks)  # type: ignore[operator]


def _refusal(packet: Logged) -> Refusal:
    return Refusal(
        container_id=packet.prefix, protocol=packet.protocol, address=packet.address, port=packet.port
    )
