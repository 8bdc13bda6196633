"""``--cap-add``, ``--cap-drop`` and ``--privileged`` as one set of capabilities."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.errors import InvalidArgument
from sampan.spec.runtime import ALL_CAPABILITIES, DEFAULT_CAPABILITIES

_ALL = "ALL"
_KNOWN = frozenset(ALL_CAPABILITIES)


def normalize(names: Iterable[str], *, flag: str) -> tuple[str, ...]:
    """Upper case, with the CAP_ prefix, "ALL" kept; InvalidArgument names an unknown one and ``flag``."""
    result: list[str] = []
    for name in names:
        upper = name.upper()
        if upper != _ALL and not upper.startswith("CAP_"):
            upper = "CAP_" + upper
        if upper in ("CAP_ALL", _ALL):
            upper = _ALL
        elif upper not in _KNOWN:
            raise InvalidArgument(f'invalid {flag}: unknown capability: "{upper}"')
        if upper not in result:
            result.append(upper)
    return tuple(result)


def effective(
    *, privileged: bool, add: Iterable[str] = (), drop: Iterable[str] = (), available: frozenset[str] = _KNOWN
) -> list[str]:
    """What the container's first process holds. Names are normalised.

    "All" means all that this host can give (``available``); a capability asked for by name is passed on
    even where the host lacks it, so that its refusal is seen.
    """
    everything = [name for name in ALL_CAPABILITIES if name in available]
    if privileged:
        return everything
    added, dropped = set(add), set(drop)
    if _ALL in added:
        return [name for name in everything if name not in dropped]
    base = () if _ALL in dropped else DEFAULT_CAPABILITIES
    kept = [name for name in base if name not in dropped]
    return kept + [name for name in ALL_CAPABILITIES if name in added and name not in kept]


def held_by_daemon() -> frozenset[str]:
    """This process's bounding set: what it can give at most."""
    with open("/proc/self/status", encoding="ascii") as file:
        mask = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd:"))
    return frozenset(name for number, name in enumerate(ALL_CAPABILITIES) if mask >> number & 1)
