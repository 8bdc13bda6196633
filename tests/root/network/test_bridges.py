"""The default bridge on hosts made of network namespaces."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sampan.errors import Conflict, Unavailable
from sampan.linux import nfnetlink as nft
from sampan.linux import rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network import Bridges, Plan
from sampan.network.naming import bridge_name
from sampan.state import Database

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces"),
]

AsHost = Callable[[Callable[[Any], None]], None]
Host = Any

FIRST, SECOND = "1a" * 32, "2b" * 32


@contextlib.asynccontextmanager
async def instance(host: Host, name: str = "one", *, bypass: bool = False) -> AsyncIterator[Bridges]:
    """A daemon's bridges; all instances of a host share a directory as they do /run."""
    root = f"{host.directory}/{name}"
    database = Database.open(f"{root}/state.db")
    shared = f"{host.directory}/shared"
    bridges = Bridges(data_root=root, database=database, shared=shared, bypass=bypass)
    await bridges.start()
    try:
        yield bridges
    finally:
        await bridges.close()
        database.close()


def firewall() -> tuple[list[str], list[str]]:
    """Names of all tables, and comments of the rules in foreign forward chains."""
    with nft.Firewall() as ruleset:
        tables = [name for _, name in ruleset.tables()]
        chains = [chain for chain in ruleset.chains() if not chain.table.startswith("sampan")]
        rules = [len(ruleset.rules(chain.family, chain.table, chain.name)) for chain in chains]
    return tables, [str(count) for count in rules]


def test_a_name_that_is_given_again_is_not_swept(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        async def life() -> None:
            async with instance(host) as bridges:
                first = await bridges.connect(FIRST)
                await bridges.release(FIRST)
                again = await bridges.connect(FIRST)
                assert again.host_name == first.host_name
                host.container(again)
                await bridges.sweep()
                assert again.host_name in host.links()
                await bridges.release(FIRST)

        asyncio.run(life())

    as_host(work)


def test_one_containers_interfaces_go_and_no_others(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        async def life() -> None:
            async with instance(host) as bridges:
                left, kept = [await bridges.connect(one) for one in (FIRST, SECOND)]
                for endpoint in (left, kept):
                    host.container(endpoint)
                    await bridges.release(FIRST if endpoint is left else SECOND)
                await bridges.sweep(container_id=FIRST)
                assert left.host_name not in host.links()
                assert kept.host_name in host.links()
                await bridges.sweep()
                assert kept.host_name not in host.links()

        asyncio.run(life())

    as_host(work)


def no_policy(host: Host) -> None:
    pass


def iptables_drops(host: Host) -> None:
    host.command("iptables-nft", "-P", "FORWARD", "DROP")


def nft_drops(host: Host) -> None:
    with nft.Firewall() as ruleset:
        chain = nft.Chain(
            family=nft.INET,
            table="hostfw",
            name="routed",
            kind="filter",
            hook=nft.FORWARD,
            priority=10,
            policy=nft.DROP,
        )
        ruleset.commit([nft.add_table(nft.INET, "hostfw"), nft.add_chain(chain)])


def legacy_drops(host: Host) -> None:
    host.command("iptables-legacy", "-P", "FORWARD", "DROP")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


@pytest.mark.parametrize(
    "policy",
    [
        no_policy,
        nft_drops,
        pytest.param(iptables_drops, marks=needs("iptables-nft")),
        pytest.param(legacy_drops, marks=needs("iptables-legacy")),
    ],
)
def test_container_reaches_the_internet_and_not_the_other_way(
    as_host: AsHost, policy: Callable[[Host], None]
) -> None:
    def work(host: Host) -> None:
        internet = host.internet()
        policy(host)
        links_before, firewall_before = host.links(), firewall()

        async def life() -> None:
            async with instance(host) as bridges:
                endpoint = await bridges.connect(FIRST)
                container = host.container(endpoint)
                address = endpoint.addresses[0].partition("/")[0]
                with host.listen(internet) as server:
                    assert host.reaches(container, server, host.INTERNET) == host.ADDRESS
                with host.listen(container) as server:
                    assert host.blocked(internet, server, address)
                    assert host.reaches(container, server, address) == address
                await bridges.release(FIRST)

        asyncio.run(life())
        assert host.links() == links_before
        assert firewall() == firewall_before
        if policy is legacy_drops:
            assert host.command("iptables-legacy", "-S", "FORWARD") == "-P FORWARD DROP\n"

    as_host(work)


@needs("iptables-nft")
def test_the_exit_rule_is_last_and_iptables_can_read_it(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        iptables_drops(host)
        host.command("iptables-nft", "-A", "FORWARD", "-s", "192.0.2.0/24", "-j", "REJECT")

        async def life() -> None:
            async with instance(host) as bridges:
                assert bridges.site is not None
                lines = host.command("iptables-nft", "-S", "FORWARD").splitlines()
                assert lines[-1] == (
                    f"-A FORWARD -m conntrack --ctorigsrc {bridges.site.subnet} -m comment --comment "
                    f'"{bridges.name}: containers of {bridges.site.subnet} may leave" -j ACCEPT'
                )
                assert len(lines) == 3

        asyncio.run(life())
        assert len(host.command("iptables-nft", "-S", "FORWARD").splitlines()) == 2

    as_host(work)


def test_two_instances_are_apart(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        internet = host.internet()
        before = host.links()

        async def life() -> None:
            async with instance(host, "one") as one:
                async with instance(host, "two") as two:
                    assert one.site is not None
                    assert two.site is not None
                    assert one.name != two.name
                    assert one.site.subnet != two.site.subnet
                    first, second = await one.connect(FIRST), await two.connect(FIRST)
                    assert first.host_name != second.host_name or first.bridge != second.bridge
                    box = host.container(first)
                    # The same container id in another instance: its host end gets another name.
                    second = await two.connect(FIRST)
                    other = host.container(second)
                    address = second.addresses[0].partition("/")[0]
                    with host.listen(other) as server:
                        assert host.blocked(box, server, address)
                    with host.listen(internet) as server:
                        assert host.reaches(box, server, host.INTERNET) == host.ADDRESS
                        assert host.reaches(other, server, host.INTERNET) == host.ADDRESS
                    await two.release(FIRST)
                assert two.name not in host.links()
                with host.listen(internet) as server:
                    assert host.reaches(box, server, host.INTERNET) == host.ADDRESS
                await one.release(FIRST)

        asyncio.run(life())
        assert host.links() == before
        assert not [name for name in firewall()[0] if name.startswith("sampan")]

    as_host(work)


def test_a_new_daemon_finds_the_leases_in_the_kernel(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        async def life() -> None:
            async with instance(host) as before:
                kept, dead = await before.connect(FIRST), await before.connect(SECOND)
                host.container(kept)
                host.container(dead)
            # It ended with containers connected: everything stays.
            assert {before.name, kept.host_name, dead.host_name} <= host.links()
            async with instance(host) as after:
                new = await after.connect("3c" * 32)
                assert new.addresses not in (kept.addresses, dead.addresses)
                await after.reconcile({FIRST: 0, "3c" * 32: 0})
                assert after.endpoints()[FIRST] == kept
                assert dead.host_name not in host.links()
                assert kept.host_name in host.links()
                with pytest.raises(Conflict):
                    await after.purge()
                await after.release(FIRST)
                await after.release("3c" * 32)
            assert host.links() == {"lo"}

        asyncio.run(life())

    as_host(work)


def test_the_subnet_is_kept_while_it_is_free(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        async def subnet_of(name: str) -> str:
            async with instance(host, name) as bridges:
                assert bridges.site is not None
                return bridges.site.subnet

        async def life() -> None:
            async with instance(host, "one") as one:
                assert one.site is not None
                first, second = one.site.subnet, await subnet_of("two")
            assert first != second
            assert await subnet_of("two") == second
            async with instance(host, "three"):  # which takes the first pool
                assert await subnet_of("one") != first
                assert await subnet_of("two") == second

        asyncio.run(life())

    as_host(work)


def test_flushed_rules_come_back(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        async def life() -> None:
            async with instance(host) as bridges:
                with nft.Firewall() as ruleset:
                    ruleset.commit([nft.delete_table(nft.IP, bridges.name)])
                    assert (nft.IP, bridges.name) not in ruleset.tables()
                    await bridges.check_firewall()
                    assert (nft.IP, bridges.name) in ruleset.tables()
                    # A policy that turned DROP later gets its rule, one that is no longer DROP loses it.
                    nft_drops(host)
                    await bridges.check_firewall()
                    (rule,) = ruleset.rules(nft.INET, "hostfw")
                    assert rule.comment.startswith(f"{bridges.name}: ")

        asyncio.run(life())

    as_host(work)


def test_a_change_of_the_firewall_is_heard(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        async def life() -> None:
            async with instance(host) as bridges:
                checked = asyncio.Event()

                async def check() -> None:
                    checked.set()

                bridges.check_firewall = check  # type: ignore[method-assign]
                nft_drops(host)
                await asyncio.wait_for(checked.wait(), 20)

        asyncio.run(life())

    as_host(work)


def test_forwarding_is_turned_off_again_by_the_last(as_host: AsHost) -> None:
    def forwarding() -> str:
        with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as file:
            return file.read().strip()

    def work(host: Host) -> None:
        with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as file:
            file.write("0")

        async def life() -> None:
            async with instance(host, "one"):
                async with instance(host, "two"):
                    assert forwarding() == "1"
                assert forwarding() == "1"
            assert forwarding() == "0"

        asyncio.run(life())

    as_host(work)


def test_without_permission_only_connect_fails(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        os.chmod(host.directory, 0o777)
        os.setgroups([])
        for directory in (host.directory,):
            while directory != "/tmp" and len(directory) > 1:
                with contextlib.suppress(OSError):
                    os.chmod(directory, os.stat(directory).st_mode | 0o011)
                directory = os.path.dirname(directory)
        # Found by asyncio when it first starts a thread, which this user might not be able to read.
        assert concurrent.futures.thread
        os.setuid(65534)

        async def life() -> None:
            async with instance(host) as bridges:
                assert bridges.site is None
                with pytest.raises(
                    Unavailable, match=r"network bridge is not available on this host: .*ermitted"
                ):
                    await bridges.connect(FIRST)

        asyncio.run(life())

    as_host(work)


def test_a_bridge_that_was_deleted_is_made_again(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        async def life() -> None:
            async with instance(host) as bridges:
                cut_off = await bridges.connect(FIRST)
                before = bridges.site
                host.command("ip", "link", "delete", bridges.name)
                endpoint = await bridges.connect(SECOND)
                assert bridges.site == before
                assert endpoint.addresses != cut_off.addresses
                host.container(endpoint)
                await bridges.release(FIRST)
                await bridges.release(SECOND)
            assert host.links() == {"lo"}

        asyncio.run(life())

    as_host(work)


def test_a_foreign_interface_of_our_name_is_left_alone(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        name = bridge_name(f"{host.directory}/one")
        with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
            request = rtnetlink.veth_request(
                name, master=0, mtu=0, peer_name="far", peer_mac="", peer_pid=os.getpid(), up=True
            )
            netlink.perform((request,))

        async def life() -> None:
            async with instance(host) as bridges:
                with pytest.raises(Unavailable, match="is no bridge"):
                    await bridges.connect(FIRST)

        asyncio.run(life())
        assert "far" in host.links()

    as_host(work)


def test_a_bridge_of_a_network_that_was_not_recorded_is_removed(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        async def life() -> None:
            async with instance(host) as bridges:
                bridges.add("net", Plan(bridge="br-mine", network="mine"))
                site = await bridges.make("net")
                assert bridges.site is not None
                assert site.subnet != bridges.site.subnet
                endpoint = await bridges.connect(FIRST, network="net", name="eth1")
                host.container(endpoint)
                # As after a kill: nothing is closed.
            assert "br-mine" in host.links()
            async with instance(host):
                assert "br-mine" not in host.links()
                assert (nft.IP, "br-mine") not in [(nft.IP, name) for name in firewall()[0]]
            assert host.links() == {"lo"}

        asyncio.run(life())

    as_host(work)


def test_an_internal_network_is_closed_and_an_isolated_one_apart(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        internet = host.internet()

        async def life() -> None:
            async with instance(host) as bridges:
                bridges.add("in", Plan(bridge="br-in", network="in", internal=True))
                bridges.add("apart", Plan(bridge="br-apart", network="apart", isolated=True))
                boxes = {}
                for network in ("in", "apart"):
                    await bridges.make(network)
                    for owner in (FIRST, SECOND):
                        endpoint = await bridges.connect(owner, network=network)
                        address = endpoint.addresses[0].partition("/")[0]
                        boxes[network, owner] = (host.container(endpoint), address)
                with host.listen(internet) as server:
                    assert host.blocked(boxes["in", FIRST][0], server, host.INTERNET)
                    assert host.reaches(boxes["apart", FIRST][0], server, host.INTERNET) == host.ADDRESS
                for network, wanted in (("in", True), ("apart", False)):
                    there, address = boxes[network, SECOND]
                    with host.listen(there) as server:
                        way = host.reaches if wanted else host.blocked
                        assert way(boxes[network, FIRST][0], server, address)
                        other = "apart" if network == "in" else "in"
                        assert host.blocked(boxes[other, FIRST][0], server, address)
                for owner in (FIRST, SECOND):
                    await bridges.release(owner)
                for network in ("in", "apart"):
                    await bridges.remove(network)

        asyncio.run(life())
        assert not [name for name in firewall()[0] if name.startswith(("sampan", "br-"))]

    as_host(work)
