"""The ports of a container in one cell: neighbouring numbers become ranges."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def ports_text(ports: list[dict[str, Any]]) -> str:
    """``0.0.0.0:8080-8081->80-81/tcp, 90/tcp`` for the API's list of ports."""
    ordered = sorted(
        ports,
        key=lambda port: (
            port["PrivatePort"],
            port.get("IP", ""),
            port.get("PublicPort", 0),
            port["Type"],
        ),
    )
    groups: dict[str, tuple[int, int]] = {}
    mappings: list[str] = []
    finished: list[str] = []
    for port in ordered:
        private, address, kind = port["PrivatePort"], port.get("IP", ""), port["Type"]
        public = port.get("PublicPort", 0)
        key = f"{address}/{kind}" if address else kind
        if address and public != private:
            mappings.append(f"{_joined(address, public)}->{private}/{kind}")
            continue
        if key in groups and private == groups[key][1] + 1:
            groups[key] = (groups[key][0], private)
            continue
        if key in groups:
            finished.append(_group(key, *groups[key]))
        groups[key] = (private, private)
    finished += [_group(key, *span) for key, span in groups.items()]
    return ", ".join(finished + mappings)


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _group(key: str, first: int, last: int) -> str:
    address, slash, kind = key.rpartition("/")
    span = str(first) if first == last else f"{first}-{last}"
    if not slash:
        return f"{span}/{kind}"
    where = f"[{address}]" if ":" in address else address
    return f"{where}:{span}->{span}/{kind}"
