"""What Docker itself changed between the dockerd that was asked (20.10) and 28, which this engine follows.

A table of (pattern in a recorded answer, what 28 says instead), applied in order; names of Go types included.
"""

from __future__ import annotations

import re
from dataclasses import replace

from tests.e2e.parity.scene import Answer

_TABLE: tuple[tuple[str, str], ...] = (
    # Messages begin in lower case.
    (r"\bInvalid (filter|signal|IPC mode)\b", r"invalid \1"),
    (r"\bCannot kill container: ", "cannot kill container: "),
    (r"\bContainer ID is (not running|not paused|already paused)", r"container ID is \1"),
    (
        r"\bContainer \w+ is paused, unpause the container before",
        "container ID is paused, unpause the container before",
    ),
    (r"\bConfig cannot be empty\b", "config cannot be empty"),
    (r"\bNo command specified\b", "no command specified"),
    # Others are worded anew.
    (r"no such image: \S+: No such image: ", "No such image: "),
    (
        r"You cannot remove a running container ID\. Stop the container before attempting removal "
        r"or force remove",
        "cannot remove container NAME: container is running: "
        "stop the container before removing or force remove",
    ),
    (
        r"You cannot remove a paused container ID\. Unpause and then stop the container before attempting "
        r"removal or force remove",
        "cannot remove container NAME: container is paused and must be unpaused first",
    ),
    (
        r"invalid restart policy '(\w+)'",
        r"invalid restart policy: unknown policy '\1'; "
        "use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
    ),
    (
        r"maximum retry count cannot be used with restart policy '\w+'",
        "invalid restart policy: maximum retry count can only be used with 'on-failure'",
    ),
    (r'Invalid isolation: "(\w+)" - linux only supports \'default\'', r"invalid isolation '\1' on linux"),
    (r"Unknown runtime specified (\w+)", r"unknown or invalid runtime name: \1"),
    (r"The linux daemon does not support", "the linux daemon does not support"),
    (r'exec: "/etc": permission denied', 'exec: "/etc": is a directory'),
    (r'exec: \\"/etc\\": permission denied', r'exec: \\"/etc\\": is a directory'),
    (
        r"(docker: Error response from daemon: )(network nope not found)",
        r"\1failed to set up container networking: \2",
    ),
    # The runtime's mount calls are left out.
    (r"mount \S+ \(via /proc/self/fd/\d+\), flags: 0x\w+: not a directory", "not a directory"),
    (
        r"invalid value for filter 'dangling', must be \"true\" \(or \"1\"\), or \"false\" \(or \"0\"\)",
        "invalid filter 'dangling=[nope]'",
    ),
    # Bodies that are no JSON are told apart from other failures.
    (r'"message": "EOF"', r'"message": "invalid JSON: got EOF while reading request body"'),
    (
        r'"message": "(error reading volume filters: .*|json: .*map\[string\]bool)"',
        r'"message": "invalid filter"',
    ),
    (r'"message": "(got EOF|unexpected EOF|invalid character|json: )', r'"message": "invalid JSON: \1'),
    (r"runconfig\.ContainerConfigWrapper", "container.CreateRequest"),
    (r"ContainerConfigWrapper\.", "CreateRequest."),
    (r"VolumeCreateBody\.", "CreateOptions."),
    (r"ExecConfig\.", "ExecOptions."),
    # Entries of the hosts file are written as Go writes addresses.
    (r"\b(f[ef]00)::0\b", r"\1::"),
    # Events tell more.
    (r'\{"exitCode"', r'{"execDuration":"0","exitCode"'),
    (r"\(exitCode=", "(execDuration=0, exitCode="),
    (r'"Error": null, "StatusCode"', '"StatusCode"'),
)
_CHANGES = tuple((re.compile(pattern), instead) for pattern, instead in _TABLE)

# Failures of the caller that 20.10 took for its own.
_CALLERS = re.compile(
    r'"message": "(invalid JSON|strconv|invalid volume spec|invalid reference|invalid filter)'
)


_WRONG_FILTERS = re.compile(r'(?<="message": ")invalid character [^"]*')


def then(call: str, recorded: Answer) -> Answer:
    """The answer to ``call`` as Docker 28 words it."""
    out, err = recorded.out, recorded.err
    if "?filters=" in call or "&filters=" in call:
        out = _WRONG_FILTERS.sub("invalid filter", out)
    for pattern, instead in _CHANGES:
        out, err = pattern.sub(instead, out), pattern.sub(instead, err)
    code = 400 if recorded.code == 500 and _CALLERS.search(out) else recorded.code
    return replace(recorded, code=code, out=out, err=err)
