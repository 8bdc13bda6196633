from __future__ import annotations

from ipaddress import IPv4Network, ip_network

from hypothesis import given
from hypothesis import strategies as st

from sampan.network.addresses import POOLS, Addresses, Range, choose_subnet, mac_of, unique_local
from sampan.network.naming import bridge_mac, bridge_name, host_end_names, is_host_end_of


def test_pools_do_not_overlap() -> None:
    for index, pool in enumerate(POOLS):
        assert pool.is_private
        assert not any(pool.overlaps(other) for other in POOLS[index + 1 :])


def test_the_first_free_pool_is_chosen() -> None:
    assert choose_subnet([]) == POOLS[0]
    assert choose_subnet(["0.0.0.0/0", "::/0"]) == POOLS[0]
    assert choose_subnet([f"{POOLS[0].network_address + 5}/32"]) == POOLS[1]
    assert choose_subnet(["172.16.0.0/12"]) == IPv4Network("192.168.240.0/20")
    assert choose_subnet(["172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8"]) is None


def test_a_preferred_subnet_is_kept_while_free() -> None:
    assert choose_subnet([], preferred="10.9.0.0/24") == IPv4Network("10.9.0.0/24")
    assert choose_subnet(["10.9.0.7/30"], preferred="10.9.0.0/24") == POOLS[0]


def test_mac_carries_the_address() -> None:
    assert mac_of("172.29.1.255") == "02:42:ac:1d:01:ff"


def test_leases_go_round() -> None:
    addresses = Addresses(IPv4Network("192.0.2.0/29"))
    assert addresses.gateway == "192.0.2.1"
    leased = [addresses.lease() for _ in range(5)]
    assert leased == [f"192.0.2.{last}" for last in (2, 3, 4, 5, 6)]
    assert addresses.lease() is None
    addresses.release("192.0.2.5")
    addresses.release("192.0.2.3")
    # After the last one given comes the lowest free again.
    assert [addresses.lease(), addresses.lease(), addresses.lease()] == ["192.0.2.3", "192.0.2.5", None]


def test_a_freed_address_is_not_the_next() -> None:
    addresses = Addresses(IPv4Network("192.0.2.0/24"))
    first = addresses.lease()
    assert first is not None
    addresses.release(first)
    assert addresses.lease() != first


def test_claims() -> None:
    addresses = Addresses(IPv4Network("192.0.2.0/29"))
    assert addresses.claim("192.0.2.2")
    assert not addresses.claim("192.0.2.2")
    for outside in ("192.0.2.0", "192.0.2.1", "192.0.2.7", "198.51.100.2"):
        assert not addresses.claim(outside)
    assert addresses.lease() == "192.0.2.3"


@given(st.lists(st.integers(0, 6)))
def test_no_address_is_leased_twice(steps: list[int]) -> None:
    addresses = Addresses(IPv4Network("192.0.2.0/29"))
    held: list[str] = []
    for step in steps:
        if step < len(held):
            addresses.release(held.pop(step))
        else:
            got = addresses.lease()
            assert got not in held
            if got is not None:
                held.append(got)
        assert len(addresses) == len(held)


def test_names_fit_the_kernel() -> None:
    assert bridge_name("/var/lib/sampan") == "sampan0"
    name = bridge_name("/tmp/other")
    assert name.startswith("sampan-")
    assert len(name) <= 15
    assert bridge_name("/tmp/other") == name
    assert bridge_mac(name).startswith("02:42:")
    assert len(bridge_mac(name)) == 17
    names = host_end_names("0123456789abcdef" * 4)
    assert names[0] == "sv01234567"
    assert names[5] == "sv0123456789abc"
    assert names[-1] == "svz0123456789"
    assert all(is_host_end_of(name, "0123456789abcdef" * 4) for name in names)
    assert not is_host_end_of("sv0123", "0123456789abcdef" * 4)
    assert not is_host_end_of("eth0", "0123456789abcdef" * 4)


def test_ipv6_subnets_are_the_instances_own() -> None:
    one, other = unique_local("sampan0"), unique_local("sampan-1")
    assert one == unique_local("sampan0") != other
    assert (one.prefixlen, str(one)[:2]) == (48, "fd")
    wanted = Range(version=6)
    first = wanted.choose([], preferred=None, seed="sampan0")
    assert ip_network(first).subnet_of(one)  # type: ignore[arg-type]
    second = wanted.choose([first, "10.0.0.0/8", "::/0"], preferred=None, seed="sampan0")
    assert second not in ("", first)
    assert wanted.choose([first], preferred=second, seed="sampan0") == second


def test_ipv6_addresses() -> None:
    addresses = Addresses(ip_network("fd00::/64"), pool=ip_network("fd00::100/126"), reserved=("fd00::101",))
    # The first of the pool is the gateway's, and none is a broadcast.
    assert addresses.gateway == "fd00::100"
    assert [addresses.lease() for _ in range(3)] == ["fd00::102", "fd00::103", None]
    assert addresses.claim("fd00::77")
    for refused in ("fd00::77", "fd00::101", "fd00::", "fd01::1", "10.0.0.1"):
        assert not addresses.claim(refused)
    addresses.release("fd00::102")
    addresses.release("10.0.0.1")
    assert addresses.lease() == "fd00::102"
    assert "fd00::5" in addresses
    assert "10.0.0.5" not in addresses
    assert mac_of("fd00::1") != mac_of("fd00::2")
