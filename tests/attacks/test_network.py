"""Attacks by packets: what a container sends with the raw sockets that Docker gives it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.conftest import Docker
from tests.attacks.test_kernel import HOSTS_PROGRAMS, PYTHON, needs_python
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

pytestmark = [pytest.mark.root, pytest.mark.e2e, needs_python]

CHECKSUM = """
import fcntl, socket, struct, sys
def checksum(data):
    data += b"\\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16: total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
def udp(source, target, port, data):
    head = struct.pack("!4H", 9, port, 8 + len(data), 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(data), 1, 0, 64, 17, 0,
                     socket.inet_aton(source), socket.inet_aton(target))
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return ip + head + data
card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
card.bind(("eth0", 0))
mine = card.getsockname()[4]
def frame(to, kind, data):
    card.send(bytes.fromhex(to.replace(":", "")) + mine + struct.pack("!H", kind) + data)
"""

LEADS = """
import struct
target = "ff02::1"
option = struct.pack("!BB6s", 1, 1, mine) + struct.pack("!BBBBLLL16s", 3, 4, 64, 0xC0, 9000, 9000, 0,
         socket.inet_pton(socket.AF_INET6, "2001:db8:bad::"))
body = struct.pack("!BBHBBHLL", 134, 0, 0, 64, 0, 1800, 0, 0) + option
from_ = socket.inet_pton(socket.AF_INET6, "fe80::bad")
to = socket.inet_pton(socket.AF_INET6, target)
sum_ = checksum(from_ + to + struct.pack("!LL", len(body), 58) + body)
body = body[:2] + struct.pack("!H", sum_) + body[4:]
packet = struct.pack("!LHBB", 6 << 28, len(body), 58, 255) + from_ + to + body
for _ in range(3): frame("33:33:00:00:00:01", 0x86DD, packet)
print("sent")
"""


HEAR = """
import os, socket
ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ear.bind(("0.0.0.0", 999))
heard = os.open("/heard", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while True: os.write(heard, ear.recv(100))
"""


@pytest.fixture
def ear() -> Iterator[socket.socket]:
    """A service on the host's loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.3)
        yield listener


def gateway(daemon: Daemon, network: str = "bridge") -> tuple[str, str]:
    """(address, name of the bridge) on the host of a network."""
    found = json.loads(ask(daemon.socket, "GET", f"/networks/{network}")[1])
    address = found["IPAM"]["Config"][0]["Gateway"]
    with open("/proc/net/route") as file:
        network_ = ".".join(address.split(".")[:2])
        for line in file:
            name, destination = line.split()[:2]
            if destination != "Destination":
                there = socket.inet_ntoa(bytes.fromhex(destination)[::-1])
                if there.startswith(f"{network_}.") and there != "0.0.0.0":
                    return address, name
    raise AssertionError("no bridge")


def hardware(name: str) -> str:
    return Path(f"/sys/class/net/{name}/address").read_text().strip()


def play(engine: Docker, script: str, *more: str) -> str:
    done = engine("run", "--rm", *HOSTS_PROGRAMS, *more, "busybox", PYTHON, "-c", CHECKSUM + script)
    return done.stdout + done.stderr


def test_cve_2020_13401_router_advertisements_lead_nobody(engine: Docker, daemon: Daemon) -> None:
    """A container says that it is the way to everywhere: the host must not believe it."""
    setting = Path("/proc/sys/net/ipv6/conf")
    if not setting.exists():
        pytest.skip("the host has no IPv6")
    engine("run", "-d", "busybox", "sleep", "1000")  # so that the bridge is up
    _, bridge = gateway(daemon)
    assert play(engine, LEADS) == "sent\n"
    ways = [line.split() for line in Path("/proc/net/ipv6_route").read_text().splitlines()]
    assert [words for words in ways if words[0].startswith("20010db80bad")] == []
    assert [words for words in ways if words[0] + words[1] == "0" * 34 and words[-1] == bridge] == []
    assert (setting / bridge / "accept_ra").read_text() == "0\n"


def test_cve_2020_8558_loopback_of_the_host_is_not_reached(
    engine: Docker, daemon: Daemon, ear: socket.socket
) -> None:
    """Packets for 127.0.0.1, sent to the host's own hardware address."""
    engine("run", "-d", "busybox", "sleep", "1000")
    address, bridge = gateway(daemon)
    port = ear.getsockname()[1]
    script = (
        f"for source in ('127.0.0.1', {address!r}, '172.29.0.77'):\n"
        f"    frame({hardware(bridge)!r}, 0x800, udp(source, '127.0.0.1', {port}, b'evil'))\n"
        "print('sent')\n"
    )
    assert play(engine, script) == "sent\n"
    with pytest.raises(TimeoutError):
        ear.recv(100)


def test_other_networks_are_not_reached(engine: Docker, daemon: Daemon) -> None:
    """With raw packets and somebody else's address, through the host, as through its own address."""
    assert engine("network", "create", "evil-one").returncode == 0
    try:
        place = ("--name", "box", "--network", "evil-one", *HOSTS_PROGRAMS)
        engine("run", "-d", *place, "busybox", PYTHON, "-c", HEAR)
        engine("exec", "box", "sh", "-c", "until [ -e /heard ]; do :; done")
        box = json.loads(ask(daemon.socket, "GET", "/containers/box/json")[1])
        there = box["NetworkSettings"]["Networks"]["evil-one"]
        engine("run", "-d", "busybox", "sleep", "1000")
        _, bridge = gateway(daemon)
        script = (
            f"for source in ({there['Gateway']!r}, '8.8.8.8', '172.29.0.77'):\n"
            f"    frame({hardware(bridge)!r}, 0x800, udp(source, {there['IPAddress']!r}, 999, b'evil'))\n"
            "plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"plain.sendto(b'evil', ({there['IPAddress']!r}, 999))\nprint('sent')\n"
        )
        assert play(engine, script) == "sent\n"
        assert engine("exec", "box", "cat", "/heard").stdout == ""
        # What is sent from beside it arrives, and only that.
        near = "import socket; s = socket.socket(2, 2); s.sendto(b'ok', ('box', 999))"
        engine("run", "--rm", "--network", "evil-one", *HOSTS_PROGRAMS, "busybox", PYTHON, "-c", near)
        engine("exec", "box", "sh", "-c", "until [ -s /heard ]; do :; done")
        assert engine("exec", "box", "cat", "/heard").stdout == "ok"
    finally:
        engine("rm", "-f", "box")
        engine("network", "rm", "evil-one")


def test_a_container_does_not_change_who_it_is(engine: Docker, ids: tuple[str, ...]) -> None:
    """Addresses, routes and filters are the engine's: that takes NET_ADMIN."""
    tries = (
        "ip addr add 172.29.0.200/16 dev eth0 && echo DONE; ip link set eth0 address 02:00:00:00:00:01 && "
        "echo DONE; ip route add 10.99.0.0/16 dev eth0 && echo DONE; ip link set eth0 promisc on && echo DONE"
    )
    assert "DONE" not in engine("run", "--rm", *ids, "busybox", "sh", "-c", f"{tries}; true").stdout
