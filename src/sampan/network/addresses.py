"""IPv4 addresses of one network. Law: an address is leased before it is used, and to one holder only.

Addresses go round: a freed one is given out again only after all others, so that neighbours' caches and
connection tracking have forgotten its last holder.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

POOLS: tuple[IPv4Network, ...] = (
    *(IPv4Network((172 << 24 | second << 16, 16)) for second in range(29, 17, -1)),
    *(IPv4Network((192 << 24 | 168 << 16 | third << 8, 20)) for third in range(240, 0, -16)),
    *(IPv4Network((10 << 24 | second << 16, 16)) for second in range(201, 250)),
)
"""Where a bridge's subnet is looked for, in order; what dockerd and podman take first is left to them."""


def choose_subnet(taken: Iterable[str], *, preferred: str | None = None) -> IPv4Network | None:
    """The preferred subnet, or else the first of ``POOLS``, that overlaps nothing taken; None without one.

    ``taken`` is in CIDR notation, host bits allowed; default routes (prefix 0) cover everything and are
    passed over, like IPv6.
    """
    others = [IPv4Network(cidr, strict=False) for cidr in taken if ":" not in cidr]
    others = [other for other in others if other.prefixlen]
    wanted = (IPv4Network(preferred), *POOLS) if preferred else POOLS
    for pool in wanted:
        if not any(pool.overlaps(other) for other in others):
            return pool
    return None


def mac_of(address: str) -> str:
    """Docker's MAC for an IPv4 address: 02:42 and the address."""
    return "02:42:" + IPv4Address(address).packed.hex(":")


class Addresses:
    """Leases of one subnet. The first host address is the gateway's."""

    def __init__(self, subnet: IPv4Network) -> None:
        self.subnet = subnet
        self._first = int(subnet.network_address) + 2
        self._end = int(subnet.broadcast_address)
        self._next = self._first
        self._leased: set[int] = set()

    @property
    def gateway(self) -> str:
        return str(self.subnet.network_address + 1)

    def __len__(self) -> int:
        return len(self._leased)

    def lease(self) -> str | None:
        """A free address, None if there is none."""
        if len(self._leased) >= self._end - self._first:
            return None
        while self._next in self._leased:
            self._advance()
        number = self._next
        self._leased.add(number)
        self._advance()
        return str(IPv4Address(number))

    def claim(self, address: str) -> bool:
        """Lease this very address; False if it is not of this subnet, or is leased already."""
        number = int(IPv4Address(address))
        if not self._first <= number < self._end or number in self._leased:
            return False
        self._leased.add(number)
        return True

    def release(self, address: str) -> None:
        """Succeeds if it is not leased."""
        self._leased.discard(int(IPv4Address(address)))

    def _advance(self) -> None:
        self._next = self._next + 1 if self._next + 1 < self._end else self._first
