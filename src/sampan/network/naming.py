"""Names of what one instance makes in the host's network namespace. Law: they follow from its data root.

So two instances never meet, and an instance finds its own again after any crash.
"""

from __future__ import annotations

import hashlib

DEFAULT_DATA_ROOT = "/var/lib/sampan"

HOST_PREFIX = "sv"
"""Names of the host ends of veth pairs begin so."""

_LETTERS = "ghijklmnopqrstuvwxyz"
_NAME_SIZE = 15  # IFNAMSIZ without the final zero


def bridge_name(data_root: str) -> str:
    """``sampan0`` for the default data root, else ``sampan-`` and six hex digits; also the table's name."""
    if data_root == DEFAULT_DATA_ROOT:
        return "sampan0"
    return "sampan-" + hashlib.sha256(data_root.encode()).hexdigest()[:6]


def network_bridge_name(network_id: str) -> str:
    """Docker's name for the bridge of a network that a user made."""
    return f"br-{network_id[:12]}"


def bridge_mac(name: str) -> str:
    """A locally administered address in Docker's range, fixed for the bridge's life."""
    return "02:42:" + hashlib.sha256(name.encode()).digest()[:4].hex(":")


def host_end_names(container_id: str) -> list[str]:
    """Names for the host end of a container's veth pair, in order of preference.

    More than one because the kernel takes a dead container's network namespace down in its own time, and
    the pair with it: a restarted container does not wait for that.
    """
    longest = HOST_PREFIX + container_id[: _NAME_SIZE - len(HOST_PREFIX)]
    first = [longest[:size] for size in range(len(HOST_PREFIX) + 8, len(longest) + 1)]
    # With a letter that no id has, for those who are on many networks.
    return [*first, *(f"{HOST_PREFIX}{letter}{container_id[:10]}" for letter in _LETTERS)]


def is_host_end_of(name: str, container_id: str) -> bool:
    digits = name.removeprefix(HOST_PREFIX).lstrip(_LETTERS)
    return digits != name and len(digits) >= 8 and container_id.startswith(digits)
