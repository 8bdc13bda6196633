"""What an egress policy says, and how it is written."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.network.egresspolicy import Policy, may_lead_to, parse


def test_policies_add_up() -> None:
    found = parse(["allow=Example.org:443,10.0.0.0/8", "allow=*.example.org,[2001:db8::1]:53,10.1.1.1"])
    assert found == Policy(
        names=(("example.org", 443), ("*.example.org", 0)),
        networks=(
            (ip_network("10.0.0.0/8"), 0),
            (ip_network("2001:db8::1"), 53),
            (ip_network("10.1.1.1"), 0),
        ),
    )
    assert str(found) == "allow=example.org:443,*.example.org,10.0.0.0/8,[2001:db8::1]:53,10.1.1.1"
    assert parse([str(found)]) == found
    assert (parse([]), parse(["any"]), parse([""])) == (None, None, None)
    assert parse(["none"]) == Policy()
    assert str(Policy()) == "none"


def test_ports_of_a_name() -> None:
    found = parse(["allow=a.example:1,a.example:2,*.b.example:3"])
    assert found is not None
    assert found.ports_of("a.example") == {1, 2}
    assert found.ports_of("x.y.b.example") == {3}
    assert found.ports_of("b.example") == found.ports_of("notb.example") == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        *("all", "allow", "allow=", "deny=x", "allow=:80", "allow=x:", "allow=x:0", "allow=x:70000"),
        *(
            "allow=x:http",
            "allow=a b",
            "allow=-x",
            "allow=x..y",
            "allow=10.0.0.1/8",
            "allow=1.2.3",
            "allow=,",
        ),
        *("allow=[::1", "allow=[::1]80", "allow=*", "allow=*.*.x", "allow=a.*.x", "allow=" + "x" * 64),
        "allow=" + ",".join(f"h{number}" for number in range(300)),
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse([text])


def test_what_does_not_go_together() -> None:
    for texts in (["any", "none"], ["any", "allow=x"]):
        with pytest.raises(InvalidArgument, match="any allows nothing beside it"):
            parse(texts)


@given(st.text(max_size=60))
def test_nothing_but_invalid_arguments(text: str) -> None:
    try:
        found = parse(["allow=" + text])
    except InvalidArgument:
        return
    assert found is not None
    assert parse([str(found)]) == found


def test_where_names_lead() -> None:
    for address in ("127.1.2.3", "169.254.169.254", "0.0.0.0", "255.255.255.255", "::1", "::", "fe80::1"):
        assert not may_lead_to(ip_address(address))
    for address in ("93.184.216.34", "10.0.0.1", "2001:db8::1", "fd00::1"):
        assert may_lead_to(ip_address(address))
