"""Which ports are asked for, as wishes, and how what came of them is shown."""

from __future__ import annotations

import pytest

from sampan.engine import publishing
from sampan.engine.model import ContainerConfig, HostConfig, PortBinding
from sampan.errors import InvalidArgument
from sampan.network.published import Published, Wish


def wishes(host: HostConfig, *exposed: str) -> list[Wish]:
    return publishing.wanted(ContainerConfig(exposed_ports={port: {} for port in exposed}), host)


def test_bindings_are_wishes() -> None:
    host = HostConfig(
        port_bindings={
            "443/tcp": (PortBinding(host_ip="127.0.0.1", host_port="8443"),),
            "80": (PortBinding(), PortBinding(host_port="8000-8002")),
            "53/udp": None,
        }
    )
    assert wishes(host, "80/tcp") == [
        Wish(protocol="udp", target=53),
        Wish(protocol="tcp", target=80),
        Wish(protocol="tcp", target=80, ports=range(8000, 8003)),
        Wish(protocol="tcp", target=443, address="127.0.0.1", ports=range(8443, 8444)),
    ]


def test_all_that_is_exposed() -> None:
    host = HostConfig(publish_all_ports=True, port_bindings={"80/tcp": (PortBinding(host_port="1"),)})
    assert wishes(host, "90/udp", "80/tcp") == [
        Wish(protocol="tcp", target=80, ports=range(1, 2)),
        Wish(protocol="udp", target=90),
    ]


@pytest.mark.parametrize(
    ("port", "binding"),
    [("x/tcp", ""), ("0/tcp", ""), ("70000/tcp", ""), ("80/icmp", ""), ("80/tcp", "x"), ("80/tcp", "9-8")],
)
def test_what_is_no_port(port: str, binding: str) -> None:
    host = HostConfig(port_bindings={port: (PortBinding(host_port=binding),)})
    with pytest.raises(InvalidArgument, match=r"^invalid (port specification|proto): "):
        wishes(host)


def test_what_is_shown() -> None:
    ports = [
        Published(protocol="tcp", host=host, port=8080, address="10.0.0.2", target=80)
        for host in ("0.0.0.0", "::")
    ]
    assert publishing.shown(ports) == {
        "80/tcp": (
            PortBinding(host_ip="0.0.0.0", host_port="8080"),
            PortBinding(host_ip="::", host_port="8080"),
        )
    }
    assert [port.where for port in ports] == ["0.0.0.0:8080", "[::]:8080"]
    assert ports[1].element() is None
    assert ports[0].element() == ("tcp_any", b"\x1f\x90", b"\x0a\0\0\x02\0\x50\0\0")
