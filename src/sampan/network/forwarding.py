"""What the host's own firewall says of forwarded packets, as far as it can be told without guessing at
rules: whether the host forwards at all, and which chains have a say, with their policy and the number of
their rules.

Blocking calls; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sampan.linux import nfnetlink as nft
from sampan.network import legacy
from sampan.network.firewall import comment_of, families_of, guards_forwarding

_SWITCHES = {4: "/proc/sys/net/ipv4/ip_forward", 6: "/proc/sys/net/ipv6/conf/all/forwarding"}
_FAMILIES = {4: nft.IP, 6: nft.IP6}
_NAMES = {nft.IP: "ip", nft.IP6: "ip6", nft.INET: "inet"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A chain of the host's that sees forwarded packets. ``rules``: how many of them are not ours."""

    name: str
    drops: bool
    rules: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """For one version of IP."""

    enabled: bool
    guards: tuple[Guard, ...] = ()

    @property
    def drops(self) -> tuple[Guard, ...]:
        """Those that drop what their rules do not know."""
        return tuple(guard for guard in self.guards if guard.drops)

    @property
    def rules(self) -> tuple[Guard, ...]:
        """Those that have rules."""
        return tuple(guard for guard in self.guards if guard.rules)


def look(version: int, *, ours: Callable[[str], bool]) -> Forwarding:
    """``ours`` tells the name of a table, or the comment of a rule, that an engine like this made."""
    guards = []
    family = _FAMILIES[version]
    with nft.Firewall() as firewall:
        for chain in firewall.chains():
            if not guards_forwarding(chain) or family not in families_of(chain) or ours(chain.table):
                continue
            rules = firewall.rules(chain.family, chain.table, chain.name)
            guards.append(
                Guard(
                    name=f"{_NAMES[chain.family]} {chain.table} {chain.name}",
                    drops=chain.policy == nft.DROP,
                    rules=sum(not ours(comment_of(rule)) for rule in rules),
                )
            )
    found = legacy.look(ipv6=version == 6)
    if found is not None:
        lines = [line for line in found if line.startswith("-A FORWARD ")]
        others = sum(not ours(line.partition('--comment "')[2]) for line in lines)
        guards.append(Guard(name="legacy FORWARD", drops="-P FORWARD DROP" in found, rules=others))
    return Forwarding(enabled=_on(_SWITCHES[version]), guards=tuple(guards))


def _on(path: str) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip() not in ("", "0")
    except OSError:
        return False
