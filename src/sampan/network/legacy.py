"""The rules of a bridge in legacy iptables' FORWARD chain, where that drops (``firewall.py``).

Legacy iptables has no interface but its own program, and tells nobody of changes. Blocking calls.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Sequence

_TABLES = {False: "/proc/net/ip_tables_names", True: "/proc/net/ip6_tables_names"}
_PROGRAMS = {False: ("iptables-legacy", "iptables"), True: ("ip6tables-legacy", "ip6tables")}


def rules(bridge: str, subnet: str, comments: Sequence[str]) -> list[tuple[str, ...]]:
    """The words of the rules with these comments (``firewall.Policy.comments``), each of which ends in its
    comment."""
    matches = (
        ("-m", "conntrack", "--ctorigsrc", subnet),
        ("-i", bridge, "-o", bridge, "-p", "ipv6-icmp"),
    )
    return [
        (*match, "-m", "comment", "--comment", comment)
        for match, comment in zip(matches, comments, strict=False)
    ]


def look(*, ipv6: bool) -> list[str] | None:
    """The chain as the program lists it; None where legacy iptables is not in use."""
    program = _program(ipv6=ipv6) if "filter" in _tables(ipv6=ipv6) else None
    return _run(program, "-S", "FORWARD").splitlines() if program is not None else None


def ensure(bridge: str, wanted: Sequence[tuple[str, ...]], *, ipv6: bool) -> bool:
    """Let the chain have these rules and no others of the bridge's, where its policy is DROP.

    True if anything had to be changed.
    """
    if "filter" not in _tables(ipv6=ipv6):
        return False
    program = _program(ipv6=ipv6)
    if program is None:
        return False
    lines = _run(program, "-S", "FORWARD").splitlines()
    ours = [line for line in lines if f'--comment "{bridge}: ' in line]
    if "-P FORWARD DROP" not in lines:
        wanted = ()
    if len(ours) == len(wanted) and all(rule[-1] in line for rule, line in zip(wanted, ours, strict=True)):
        return False
    for number in reversed([lines.index(line) for line in ours]):
        # -S lists the policy first, so that a rule's index is its number, which counts from 1.
        _run(program, "-D", "FORWARD", str(number))
    for rule in wanted:
        _run(program, "-A", "FORWARD", *rule, "-j", "ACCEPT")
    return True


def _tables(*, ipv6: bool) -> Sequence[str]:
    try:
        with open(_TABLES[ipv6], encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return ()


def _program(*, ipv6: bool) -> str | None:
    for name in _PROGRAMS[ipv6]:
        try:
            version = _run(name, "-V")
        except FileNotFoundError:
            continue
        if "nf_tables" not in version:
            return name
    return None


def _run(program: str, *arguments: str) -> str:
    """Run it and return what it prints; OSError with its last line if it fails."""
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        (program, *arguments) if "-V" in arguments else (program, "-w", "5", *arguments),
        env={"PATH": search, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OSError(errno.EIO, f"{program}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return done.stdout
