"""The options of the network drivers macvlan and ipvlan, in Docker's words."""

from __future__ import annotations

from collections.abc import Mapping

from sampan.errors import InvalidArgument
from sampan.linux.rtnetlink import IPVLAN_FLAGS, IPVLAN_MODES, MACVLAN_MODES

MACVLAN, IPVLAN = "macvlan", "ipvlan"
SEGMENTS = (MACVLAN, IPVLAN)
PARENT = "parent"
_MACVLAN_MODE, _IPVLAN_MODE, _IPVLAN_FLAG = "macvlan_mode", "ipvlan_mode", "ipvlan_flag"
_LONGEST_INTERFACE = 15


def mode(driver: str, options: Mapping[str, str]) -> str:
    """As ``rtnetlink.child_request`` has it; empty for a bridge."""
    if driver == MACVLAN:
        return options.get(_MACVLAN_MODE) or "bridge"
    if driver == IPVLAN:
        return f"{options.get(_IPVLAN_MODE) or 'l2'} {options.get(_IPVLAN_FLAG) or 'bridge'}"
    return ""


def check(driver: str, options: Mapping[str, str]) -> None:
    """Raise InvalidArgument for a mode or a parent that there cannot be."""
    _one_of(options, MACVLAN, _MACVLAN_MODE, MACVLAN_MODES, "bridge", f"{MACVLAN} mode")
    _one_of(options, IPVLAN, _IPVLAN_MODE, IPVLAN_MODES, "l2", f"{IPVLAN} mode")
    _one_of(options, IPVLAN, _IPVLAN_FLAG, IPVLAN_FLAGS, "bridge", f"{IPVLAN} flag")
    parent = options.get(PARENT, "")
    if parent == "lo":
        raise InvalidArgument(f"loopback interface is not a valid {driver} parent link")
    if len(parent) > _LONGEST_INTERFACE or "/" in parent or any(letter.isspace() for letter in parent):
        raise InvalidArgument(f"invalid interface name: {parent}")


def _one_of(
    options: Mapping[str, str], driver: str, option: str, known: Mapping[str, int], default: str, what: str
) -> None:
    value = options.get(option)
    if value and value not in known:
        kind = what.rpartition(" ")[2]
        raise InvalidArgument(
            f"requested {what} '{value}' is not valid, '{default}' {kind} is the {driver} driver default"
        )
