"""A daemon behind SSH: the other side's ``system dial-stdio`` as a socket.

The program ``ssh`` gets one end of a socket pair as its input and output, so the rest of the client sees a
stream socket like any other. Authentication, host keys and configuration are ssh's own. It runs in a session
of its own, as with Docker's client, so that a Ctrl-C meant for the container does not cut the connection; the
variable DOCKER_SSH_NO_SETSID keeps it in ours, where it can ask for a password.
"""

from __future__ import annotations

import _socket
import os

from sampan.errors import Failure

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_.+@:-")
_REMOTE = "exec $(command -v docker || echo sampan){} system dial-stdio"


def command(text: str) -> list[str]:
    """The command line for ``ssh://[USER@]HOST[:PORT][/PATH]``; PATH is the socket there. Raises Failure."""
    rest = text.partition("://")[2]
    authority, slash, path = rest.partition("/")
    user, at, place = authority.rpartition("@")
    host, colon, port = place.partition(":") if "]" not in place else (place, "", "")
    if place.startswith("["):
        host, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    bad = "ssh host connection is not valid: invalid SSH URL: "
    if ":" in user:
        raise Failure(bad + "plain-text password is not supported")
    if not host:
        raise Failure(bad + "hostname is empty")
    if "?" in rest:
        raise Failure(bad + f'query parameters are not allowed: "{rest.partition("?")[2]}"')
    if (colon and not port.isdigit()) or (at and not user) or not _PLAIN.issuperset(path + user + host):
        raise Failure(bad + f'"{text}"')
    words = ["ssh", "-o", "ConnectTimeout=30", "-T"]
    words += ["-l", user] if user else []
    words += ["-p", port] if port else []
    remote = _REMOTE.format(f" --host unix:///{path}" if slash and path else "")
    return [*words, "--", host, f"sh -c '{remote}'"]


def check(text: str) -> None:
    """Raise Failure, in Docker's words, for an address that ssh could not be asked for."""
    command(text)


def dial(text: str) -> _socket.socket:
    """A stream to the daemon at ``text``. What ssh has to say goes to our stderr. Raises Failure."""
    words = command(text)
    ours, theirs = _socket.socketpair()
    os.set_inheritable(ours.fileno(), False)
    try:
        os.posix_spawnp(
            words[0],
            words,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), fd) for fd in (0, 1)],
            setsid=not os.environ.get("DOCKER_SSH_NO_SETSID"),
        )
    except OSError as error:
        ours.close()
        raise Failure(f"ssh cannot be run: {error.strerror}") from error
    finally:
        theirs.close()
    return ours
