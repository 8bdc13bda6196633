"""Addresses of one network. Law: an address is leased before it is used, and to one holder only.

Addresses go round: a freed one is given out again only after all others, so that neighbours' caches and
connection tracking have forgotten its last holder.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

Subnet: TypeAlias = IPv4Network | IPv6Network

POOLS: tuple[IPv4Network, ...] = (
    *(IPv4Network((172 << 24 | second << 16, 16)) for second in range(29, 17, -1)),
    *(IPv4Network((192 << 24 | 168 << 16 | third << 8, 20)) for third in range(240, 0, -16)),
    *(IPv4Network((10 << 24 | second << 16, 16)) for second in range(201, 250)),
)
"""Where a bridge's subnet is looked for, in order; what dockerd and podman take first is left to them."""

_MACHINE = "/etc/machine-id"


def choose_subnet(
    taken: Iterable[str], *, preferred: str | None = None, pools: Iterable[Subnet] = POOLS
) -> Subnet | None:
    """The preferred subnet, or else the first of ``pools``, that overlaps nothing taken; None without one.

    ``taken`` is in CIDR notation, host bits allowed; default routes (prefix 0) cover everything and are
    passed over, like what is of another version.
    """
    others = [other for other in (ip_network(cidr, strict=False) for cidr in taken) if other.prefixlen]
    for pool in itertools.chain([ip_network(preferred)] if preferred else (), pools):
        if not any(pool.version == other.version and pool.overlaps(other) for other in others):
            return pool
    return None


def unique_local(seed: str) -> IPv6Network:
    """The /48 of an instance's own (RFC 4193): the same on this machine for the same seed."""
    try:
        with open(_MACHINE, encoding="ascii") as file:
            machine = file.read().strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    digits = hashlib.sha256(f"{machine} {seed}".encode()).digest()[:5]
    return IPv6Network((bytes((0xFD,)) + digits + bytes(10), 48))


def mac_of(address: str) -> str:
    """Docker's MAC for an IPv4 address: 02:42 and the address. For an IPv6 address, one like it."""
    packed = ip_address(address).packed
    return "02:42:" + (packed if len(packed) == 4 else hashlib.sha256(packed).digest()[:4]).hex(":")


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What a network is to have of one version of IP.

    ``subnet`` in CIDR notation, empty: a free one is chosen; ``gateway`` empty: the first address of
    ``pool``, the part from which addresses are taken (empty: all of it). ``reserved`` are given to nobody.
    """

    version: int = 4
    subnet: str = ""
    gateway: str = ""
    pool: str = ""
    reserved: tuple[str, ...] = ()

    def addresses(self, subnet: str) -> Addresses:
        return Addresses(
            ip_network(subnet),
            gateway=self.gateway,
            pool=ip_network(self.pool) if self.pool else None,
            reserved=self.reserved,
        )

    def choose(self, taken: Sequence[str], *, preferred: str | None, seed: str) -> str:
        """The subnet in CIDR notation; empty when nothing is free."""
        if self.subnet:
            return self.subnet
        pools = POOLS if self.version == 4 else unique_local(seed).subnets(new_prefix=64)
        found = choose_subnet(taken, preferred=preferred, pools=pools)
        return str(found) if found is not None else ""


class Addresses:
    """Leases of one subnet. The gateway's is the first address of the pool, if it is not given.

    ``pool`` is the part of the subnet from which ``lease`` takes; ``reserved`` are addresses for others.
    """

    def __init__(
        self,
        subnet: Subnet,
        *,
        gateway: str = "",
        pool: Subnet | None = None,
        reserved: Iterable[str] = (),
    ) -> None:
        self.subnet = subnet
        self._address: type[IPv4Address | IPv6Address] = IPv4Address if subnet.version == 4 else IPv6Address
        pool = pool or subnet
        low, high = int(subnet.network_address), int(subnet.broadcast_address)
        whole = subnet.max_prefixlen - subnet.prefixlen < 2
        # The first address of an IPv6 subnet means any of its routers; none is a broadcast.
        self._bounds = (low, high) if whole else (low + 1, high - (subnet.version == 4))
        self._first = max(int(pool.network_address), self._bounds[0])
        self._end = min(int(pool.broadcast_address), self._bounds[1]) + 1
        self._kept = {int(ip_address(address)) for address in reserved}
        if not gateway:
            free = (number for number in range(self._first, self._end) if number not in self._kept)
            gateway = str(self._address(next(free, self._first)))
        self.gateway = gateway
        self._kept.add(int(ip_address(gateway)))
        self._kept_inside = sum(self._first <= number < self._end for number in self._kept)
        self._leased_inside = 0
        self._next = self._first
        self._leased: set[int] = set()

    def __len__(self) -> int:
        return len(self._leased)

    def __contains__(self, address: str) -> bool:
        return ip_address(address) in self.subnet

    def lease(self) -> str | None:
        """A free address, None if there is none."""
        if self._leased_inside + self._kept_inside >= self._end - self._first:
            return None
        while self._next in self._leased or self._next in self._kept:
            self._advance()
        number = self._next
        self._leased.add(number)
        self._leased_inside += 1
        self._advance()
        return str(self._address(number))

    def claim(self, address: str) -> bool:
        """Lease this very address; False if it is not of this subnet, or is somebody's already."""
        parsed = ip_address(address)
        number = int(parsed)
        low, high = self._bounds
        if parsed.version != self.subnet.version or not low <= number <= high:
            return False
        if number in self._leased or number in self._kept:
            return False
        self._leased_inside += self._first <= number < self._end
        self._leased.add(number)
        return True

    def release(self, address: str) -> None:
        """Succeeds if it is not leased."""
        parsed = ip_address(address)
        number = int(parsed)
        if parsed.version == self.subnet.version and number in self._leased:
            self._leased.discard(number)
            self._leased_inside -= self._first <= number < self._end

    def _advance(self) -> None:
        self._next = self._next + 1 if self._next + 1 < self._end else self._first
