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
    """Leases of one subnet. The gateway's is the first address of the pool, if it is not given.

    ``pool`` is the part of the subnet from which ``lease`` takes; ``reserved`` are addresses for others.
    """

    def __init__(
        self,
        subnet: IPv4Network,
        *,
        gateway: str = "",
        pool: IPv4Network | None = None,
        reserved: Iterable[str] = (),
    ) -> None:
        self.subnet = subnet
        pool = pool or subnet
        low, high = int(subnet.network_address), int(subnet.broadcast_address)
        self._bounds = (low, high) if subnet.prefixlen >= 31 else (low + 1, high - 1)
        self._first = max(int(pool.network_address), self._bounds[0])
        self._end = min(int(pool.broadcast_address), self._bounds[1]) + 1
        self._kept = {int(IPv4Address(address)) for address in reserved}
        if not gateway:
            free = (number for number in range(self._first, self._end) if number not in self._kept)
            gateway = str(IPv4Address(next(free, self._first)))
        self.gateway = gateway
        self._kept.add(int(IPv4Address(gateway)))
        self._kept_inside = sum(self._first <= number < self._end for number in self._kept)
        self._leased_inside = 0
        self._next = self._first
        self._leased: set[int] = set()

    def __len__(self) -> int:
        return len(self._leased)

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
        return str(IPv4Address(number))

    def claim(self, address: str) -> bool:
        """Lease this very address; False if it is not of this subnet, or is somebody's already."""
        number = int(IPv4Address(address))
        low, high = self._bounds
        if not low <= number <= high or number in self._leased or number in self._kept:
            return False
        self._leased_inside += self._first <= number < self._end
        self._leased.add(number)
        return True

    def release(self, address: str) -> None:
        """Succeeds if it is not leased."""
        number = int(IPv4Address(address))
        if number in self._leased:
            self._leased.discard(number)
            self._leased_inside -= self._first <= number < self._end

    def _advance(self) -> None:
        self._next = self._next + 1 if self._next + 1 < self._end else self._first
