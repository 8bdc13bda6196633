"""The rules of a bridge as bytes; how the kernel takes them is seen in tests/root/network."""

from __future__ import annotations

import errno

import pytest

from sampan.linux import nfnetlink as nft
from sampan.linux.netlink import attributes, string, table
from sampan.network.firewall import (
    Policy,
    against_others,
    comment_of,
    exit_rule,
    guards_forwarding,
    own_rules,
    table_changes,
)

POLICY = Policy(bridge="sampan0", subnet="172.29.0.0/16")
COMMENT = "sampan0: containers of 172.29.0.0/16 may leave"

# What iptables-nft(8) stored for: -m conntrack --ctorigsrc 172.29.0.0/16
CTORIGSRC = bytes.fromhex(
    "ac1d0000000000000000000000000000ffff000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000004000000000000000000000000000000000000000000"
)


def chain(
    family: int = nft.IP, table_name: str = "filter", name: str = "FORWARD", hook: int | None = nft.FORWARD
) -> nft.Chain:
    return nft.Chain(family=family, table=table_name, name=name, kind="filter", hook=hook, policy=nft.DROP)


def rule_of(request: tuple[int, int, bytes]) -> nft.Rule:
    _, _, body = request
    values = table(body[4:])
    expressions = tuple(
        (string(table(element)[1]), table(element).get(2, b"")) for _, element in attributes(values[4])
    )
    # The kernel adds the handle.
    read = nft.parse_rule(body + b"\x0c\0\3\0" + bytes(8))
    assert read.expressions == expressions
    return read


def test_iptables_gets_the_rule_in_its_own_form() -> None:
    rule = rule_of(exit_rule(POLICY, chain()))
    assert [name for name, _ in rule.expressions] == ["match", "match", "counter", "immediate"]
    assert table(rule.expressions[0][1])[3] == CTORIGSRC
    assert comment_of(rule) == COMMENT


def test_nft_gets_the_rule_in_its_own_form() -> None:
    rule = rule_of(exit_rule(POLICY, chain(nft.INET, "filter", "FORWARD")))
    assert [name for name, _ in rule.expressions] == ["ct", "bitwise", "cmp", "counter", "immediate"]
    assert comment_of(rule) == COMMENT


def test_which_chains_matter() -> None:
    assert guards_forwarding(chain())
    assert guards_forwarding(chain(nft.INET, "fw", "routed"))
    assert guards_forwarding(chain(nft.IP6))
    assert not guards_forwarding(chain(hook=nft.INPUT))
    assert not guards_forwarding(chain(hook=None))


def test_a_changed_subnet_is_seen_in_the_comments() -> None:
    other = Policy(bridge="sampan0", subnet="172.28.0.0/16")
    assert [rule[:2] for rule in own_rules(POLICY)] != [rule[:2] for rule in own_rules(other)]
    # Add, delete, add: made anew whether or not it was there.
    assert len(table_changes(POLICY)) == 3 + 3 + len(own_rules(POLICY))


def test_another_programs_change_is_outlived() -> None:
    outcomes: list[OSError | bool] = [OSError(errno.ENOENT, ""), OSError(errno.ENOENT, ""), True]

    def work() -> bool:
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    assert against_others(work)
    outcomes.extend(OSError(errno.ENOENT, "") for _ in range(10))
    with pytest.raises(FileNotFoundError):
        against_others(work)
    outcomes[:] = [OSError(errno.EPERM, ""), True]
    with pytest.raises(PermissionError):
        against_others(work)
