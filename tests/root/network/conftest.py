"""Hosts made of network namespaces: a test's body runs as a host of its own, in a forked child."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from sampan.linux import process, rtnetlink
from sampan.linux.netlink import Netlink
from sampan.sandbox import interfaces
from sampan.sandbox.messages import Endpoint

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000


@dataclass(slots=True, kw_only=True)
class Namespace:
    """A network namespace held open by a child that only waits."""

    pid: int
    hold: int

    def socket(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        """A socket that belongs to this namespace."""
        made: list[socket.socket] = []

        def work() -> None:
            self._enter()
            made.append(socket.socket(family, kind))

        _in_thread(work)
        return made[0]

    def run(self, work: Callable[[], None]) -> None:
        """Run something in a thread of this namespace."""

        def entered() -> None:
            self._enter()
            work()

        _in_thread(entered)

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.hold)

    def _enter(self) -> None:
        fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            process.setns(fd, CLONE_NEWNET)
        finally:
            os.close(fd)


@dataclass(slots=True, kw_only=True)
class Host:
    """The namespace that the test runs in, with ``internet`` a hop away at 198.51.100.2 and 2001:db8:5::2."""

    directory: str
    namespaces: list[Namespace] = field(default_factory=list)

    ADDRESS = "198.51.100.1"
    INTERNET = "198.51.100.2"
    ADDRESS6 = "2001:db8:5::1"
    INTERNET6 = "2001:db8:5::2"

    def namespace(self, *, private_users: bool = False) -> Namespace:
        ready, hold = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(hold[1])
            process.unshare(CLONE_NEWNET | (CLONE_NEWUSER if private_users else 0))
            os.write(ready[1], b"x")
            os.read(hold[0], 1)
            os._exit(0)
        os.close(hold[0])
        os.read(ready[0], 1)
        os.close(ready[0])
        os.close(ready[1])
        made = Namespace(pid=pid, hold=hold[1])
        self.namespaces.append(made)
        return made

    def internet(self) -> Namespace:
        made = self.namespace()
        with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
            request = rtnetlink.veth_request(
                "uplink", master=0, mtu=0, peer_name="world", peer_mac="", peer_pid=made.pid, up=True
            )
            netlink.perform((request,))
            index = rtnetlink.link_index("uplink")
            places = (f"{self.ADDRESS}/24", f"{self.ADDRESS6}/64", "fe80::a/64")
            netlink.perform([rtnetlink.address_request(index, place) for place in places])

        def configure() -> None:
            interfaces.loopback_up()
            with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
                index = rtnetlink.link_index("world")
                netlink.perform(
                    (
                        rtnetlink.set_link_request(index=index, up=True),
                        rtnetlink.address_request(index, f"{self.INTERNET}/24"),
                        rtnetlink.address_request(index, f"{self.INTERNET6}/64"),
                        rtnetlink.address_request(index, "fe80::b/64"),
                        rtnetlink.default_route_request(self.ADDRESS, index=index),
                        rtnetlink.default_route_request(self.ADDRESS6, index=index),
                    )
                )

        made.run(configure)
        return made

    def container(self, endpoint: Endpoint) -> Namespace:
        made = self.namespace()
        interfaces.plug(endpoint, made.pid)
        made.run(functools.partial(interfaces.configure, endpoint))
        return made

    def links(self) -> set[str]:
        with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
            return {link.name for link in rtnetlink.links(netlink)}

    def listen(self, namespace: Namespace, port: int = 80, *, ipv6: bool = False) -> socket.socket:
        server = namespace.socket(family=socket.AF_INET6 if ipv6 else socket.AF_INET)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ipv6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("::" if ipv6 else "0.0.0.0", port))
        server.listen()
        server.settimeout(5)
        return server

    def blocked(self, namespace: Namespace, server: socket.socket, address: str, port: int = 80) -> bool:
        """Whether it cannot connect. Everything is on this machine: what takes a second is not coming."""
        return self.reaches(namespace, server, address, port, patience=1) is None

    def reaches(
        self,
        namespace: Namespace,
        server: socket.socket,
        address: str,
        port: int = 80,
        *,
        patience: float = 10,
    ) -> str | None:
        """The address that the server sees when the namespace connects to it; None if it cannot.

        On a busy machine the first packet may be lost, and is sent again a second later.
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with namespace.socket(family=family) as client:
            client.settimeout(patience)
            try:
                client.connect((address, port))
            except OSError:
                return None
            accepted, (seen, *_) = server.accept()
            accepted.close()
            return str(seen)

    def command(self, *words: str) -> str:
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _in_thread(work: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _as_host(work: Callable[[Host], None], directory: str) -> str:
    """Run ``work`` in a child with a network namespace of its own; what it raised, as text."""
    result = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(result[0])
            process.unshare(CLONE_NEWNET)
            interfaces.loopback_up()
            host = Host(directory=directory)
            try:
                work(host)
            finally:
                for namespace in host.namespaces:
                    namespace.end()
            status = 0
        except BaseException:
            os.write(result[1], traceback.format_exc().encode()[:60000])
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(result[1])
    with open(result[0], "rb") as pipe:
        failed = pipe.read().decode()
    os.waitpid(pid, 0)
    return failed


@pytest.fixture
def as_host(tmp_path: os.PathLike[str]) -> Callable[[Callable[[Host], None]], None]:
    def run(work: Callable[[Host], None]) -> None:
        failed = _as_host(work, os.fspath(tmp_path))
        if failed:
            pytest.fail(failed, pytrace=False)

    return run
