from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.network import resolv
from sampan.network.resolv import Resolver, container_resolver, extra_host, hosts_text, parse, render


def test_parsing() -> None:
    text = "# a comment\n; another\nnameserver 192.0.2.53 \nnameserver ::1\ndomain old.example\n"
    text += "search a.example b.example\noptions ndots:2\n\noptions edns0 trust-ad\nnameserver\nsortlist x\n"
    found = parse(text)
    assert found == Resolver(
        nameservers=("192.0.2.53", "::1"),
        search=("a.example", "b.example"),
        options=("ndots:2", "edns0", "trust-ad"),
    )
    assert render(found) == (
        "nameserver 192.0.2.53\nnameserver ::1\nsearch a.example b.example\noptions ndots:2 edns0 trust-ad\n"
    )


@given(st.text())
def test_what_is_written_reads_back(text: str) -> None:
    found = parse(text)
    assert parse(render(found)) == found


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        (("192.0.2.53",), ("192.0.2.53",)),
        (("127.0.0.1", "192.0.2.53", "::1"), ("192.0.2.53",)),
        (("127.0.0.53",), resolv.FALLBACK),
        ((), resolv.FALLBACK),
        (("2001:db8::53",), resolv.FALLBACK),
        (("fe80::1%eth0", "nonsense"), resolv.FALLBACK),
    ],
)
def test_only_servers_that_a_container_reaches(host: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    assert container_resolver(Resolver(nameservers=host)).nameservers == wanted


def test_ipv6_servers_where_there_is_ipv6() -> None:
    host = Resolver(nameservers=("2001:db8::53", "::1", "fe80::1%eth0"))
    assert container_resolver(host, ipv6=True).nameservers == ("2001:db8::53",)
    assert container_resolver(Resolver(), ipv6=True).nameservers == resolv.FALLBACK + resolv.FALLBACK6


def test_flags_replace_what_the_host_says() -> None:
    host = Resolver(nameservers=("192.0.2.53",), search=("host.example",), options=("ndots:1",))
    assert container_resolver(host) == host
    given_flags = container_resolver(host, dns=["127.0.0.1"], search=["."], options=["timeout:1"])
    assert given_flags == Resolver(nameservers=("127.0.0.1",), search=(), options=("timeout:1",))
    with pytest.raises(InvalidArgument, match="bad nameserver address x"):
        container_resolver(host, dns=["x"])


def test_hosts_in_dockers_order() -> None:
    text = hosts_text(
        addresses=["172.29.0.2/16"],
        hostname="box",
        domainname="example",
        extra=["db:192.0.2.1", "six=[2001:db8::1]", "seven:2001:db8::2", "host.docker.internal:host-gateway"],
        gateway="172.29.0.1",
    )
    assert text.splitlines()[0] == "127.0.0.1\tlocalhost"
    assert text.splitlines()[1] == "::1\tlocalhost ip6-localhost ip6-loopback"
    assert text.splitlines()[6:] == [
        "192.0.2.1\tdb",
        "2001:db8::1\tsix",
        "2001:db8::2\tseven",
        "172.29.0.1\thost.docker.internal",
        "172.29.0.2\tbox.example box",
    ]
    assert hosts_text(hostname="box").count("\n") == 6
    assert hosts_text(addresses=["10.0.0.2/24"], hostname="a.b.c").endswith("\n10.0.0.2\ta.b.c a\n")


@pytest.mark.parametrize("entry", ["name", "name:", ":192.0.2.1", "name:nowhere", ""])
def test_bad_extra_hosts(entry: str) -> None:
    with pytest.raises(InvalidArgument, match="add-host"):
        extra_host(entry, gateway=None)


def test_no_gateway_to_name() -> None:
    with pytest.raises(InvalidArgument, match="host-gateway"):
        extra_host("name:host-gateway", gateway=None)
