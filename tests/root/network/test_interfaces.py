"""Plugging a container in: both sides, with and without a user namespace of its own."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable
from typing import Any

import pytest

from sampan.linux import process, rtnetlink
from sampan.linux.netlink import Netlink
from sampan.sandbox import interfaces
from sampan.sandbox.messages import Endpoint

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces"),
]

AsHost = Callable[[Callable[[Any], None]], None]
Host = Any

ENDPOINT = Endpoint(
    bridge="br-test",
    host_name="sv00c0ffee",
    mac="02:42:c0:00:02:07",
    addresses=("192.0.2.7/24", "2001:db8::7/64"),
    gateway="192.0.2.1",
    gateway6="2001:db8::1",
    mtu=1400,
)


def make_bridge() -> int:
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        netlink.perform((rtnetlink.bridge_request("br-test", mac="02:42:00:00:00:01"),))
        index = rtnetlink.link_index("br-test")
        netlink.perform(
            (
                rtnetlink.address_request(index, "192.0.2.1/24"),
                rtnetlink.set_link_request(index=index, up=True),
            )
        )
    return index


def check_inside() -> None:
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        links = {link.name: link for link in rtnetlink.links(netlink)}
        assert set(links) == {"lo", "eth0"}
        eth0 = links["eth0"]
        assert links["lo"].up
        assert eth0.up
        assert eth0.operational
        assert (eth0.mac, eth0.mtu, eth0.kind) == ("02:42:c0:00:02:07", 1400, "veth")
        found = rtnetlink.addresses(netlink) + rtnetlink.addresses(netlink, 10)
        # What is ours to give and the link-local address that goes with it; none is made up by the kernel.
        on_eth0 = {f"{address.local}/{address.prefix}" for address in found if address.index == eth0.index}
        assert on_eth0 == {*ENDPOINT.addresses, "fe80::42:c0ff:fe00:207/64"}
        for family, wanted in ((2, "0.0.0.0/0"), (10, "::/0")):
            routes = [route for route in rtnetlink.routes(netlink, family) if route.destination == wanted]
            assert [route.gateway for route in routes] == [
                ENDPOINT.gateway if family == 2 else ENDPOINT.gateway6
            ]


def test_both_sides(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        bridge = make_bridge()
        namespace = host.namespace()
        interfaces.plug(ENDPOINT, namespace.pid)
        namespace.run(functools.partial(interfaces.configure, ENDPOINT))
        namespace.run(check_inside)
        with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
            (port,) = [link for link in rtnetlink.links(netlink) if link.name == ENDPOINT.host_name]
            assert (port.master, port.up, port.mtu) == (bridge, True, 1400)
            assert port.operational
            assert interfaces.parse_alias(port.alias) == ("eth0", ENDPOINT.mac, ENDPOINT.addresses)
        interfaces.unplug(ENDPOINT.host_name)
        interfaces.unplug(ENDPOINT.host_name)
        assert ENDPOINT.host_name not in host.links()

    as_host(work)


def test_a_private_user_namespace_configures_its_own(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        make_bridge()
        ready, plugged, result = os.pipe(), os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            process.unshare(0x40000000 | 0x10000000)
            os.write(ready[1], b"x")
            os.read(plugged[0], 1)
            try:
                interfaces.configure(ENDPOINT)
                check_inside()
                os.write(result[1], b"ok")
            except BaseException as error:
                os.write(result[1], repr(error).encode())
            finally:
                os._exit(0)
        os.read(ready[0], 1)
        interfaces.plug(ENDPOINT, pid)
        os.write(plugged[1], b"x")
        assert os.read(result[0], 1000) == b"ok"
        os.waitpid(pid, 0)

    as_host(work)


def test_failure_leaves_nothing_and_touches_nothing(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        make_bridge()
        before = host.links()
        with pytest.raises(ProcessLookupError):
            interfaces.plug(ENDPOINT, 2**22 - 3)
        assert host.links() == before
        first, second = host.namespace(), host.namespace()
        interfaces.plug(ENDPOINT, first.pid)
        with pytest.raises(FileExistsError):
            interfaces.plug(ENDPOINT, second.pid)
        first.run(functools.partial(interfaces.configure, ENDPOINT))
        with pytest.raises(OSError, match="br-none") as failed:
            interfaces.plug(Endpoint(bridge="br-none", host_name="sv1", mac=""), first.pid)
        assert failed.value.errno == errno.ENODEV

    as_host(work)


def test_loopback_alone(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        def check() -> None:
            interfaces.loopback_up()
            with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
                assert [(link.name, link.up) for link in rtnetlink.links(netlink)] == [("lo", True)]

        host.namespace().run(check)

    as_host(work)
