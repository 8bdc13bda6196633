"""Data roots as older versions of the engine wrote them, kept as archives: what they hold, how one is made.

``tools/record-root`` writes ``tests/golden/roots/N.tar.gz``, where N is the version of its database's tables.
Law: an archive is never changed once it was released; a version with new tables adds one.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from sampan.spec import digest as digests
from sampan.wire import tar
from sampan.wire.tar import Member
from tests import archives
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

ROOTS = Path(__file__).parent / "golden" / "roots"

WORD = b"alive\n"

_MESSAGE_OFFSET = 33
_CODE = bytes.fromhex(
    "b801000000"  # mov eax, 1 (write)
    "bf01000000"  # mov edi, 1
    "488d3510000000"  # lea rsi, [rip + 16], the word behind the code
    "ba06000000"  # mov edx, 6
    "0f05"  # syscall
    "b83c000000"  # mov eax, 60 (exit)
    "31ff"  # xor edi, edi
    "0f05"  # syscall
)


def program() -> bytes:
    """A static executable for x86-64 of some 160 bytes that says `WORD` (elf(5))."""
    assert len(_CODE) == _MESSAGE_OFFSET
    body = _CODE + WORD
    base, header = 0x400000, 64 + 56
    number = int.to_bytes
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + number(2, 2, "little") + number(62, 2, "little")
    elf += number(1, 4, "little") + number(base + header, 8, "little") + number(64, 8, "little") + bytes(12)
    elf += b"".join(number(value, 2, "little") for value in (64, 56, 1, 0, 0, 0))
    load = number(1, 4, "little") + number(5, 4, "little") + bytes(8)
    load += number(base, 8, "little") * 2 + number(header + len(body), 8, "little") * 2
    return elf + load + number(0x1000, 8, "little") + body


def image() -> bytes:
    """An archive of ``tiny:1``: the program, and files of another owner, linked, and with a capability."""
    told = program()
    layer = tar.header(Member(name=b"bin/", kind=tar.DIRECTORY, mode=0o755))
    layer += tar.header(Member(name=b"bin/alive", size=len(told), mode=0o755)) + told
    layer += bytes(tar.padding(len(told)))
    layer += tar.header(Member(name=b"bin/same", kind=tar.LINK, link=b"bin/alive", mode=0o755))
    layer += tar.header(Member(name=b"data/", kind=tar.DIRECTORY, mode=0o700, uid=1000, gid=2000))
    layer += tar.header(Member(name=b"data/first", size=5, mode=0o640, uid=1000, gid=2000)) + b"first"
    layer += bytes(tar.padding(5)) + tar.END
    return archives.pack(archives.docker_files([layer], ["tiny:1"], config={"Cmd": ["/bin/alive"]}))


def fill(daemon: Daemon, docker: str) -> None:
    """Make, in an empty engine, what `expected` describes."""

    def run(*arguments: str, given: bytes = b"") -> None:
        subprocess.run([docker, "-H", daemon.host, *arguments], input=given, check=True, capture_output=True)

    status, said = ask(daemon.socket, "POST", "/images/load?quiet=1", image())
    assert status == 200, said
    run("network", "create", "--subnet", "172.31.77.0/24", "--label", "a=b", "net")
    run("volume", "create", "--label", "c=d", "data")
    run("run", "--name", "kept", "--network", "none", "--label", "e=f", "tiny:1")
    made = ("--env", "WORD=x", "--restart", "on-failure:3", "-p", "127.0.0.1:38123:80", "-v", "data:/data")
    run("create", "--name", "made", "--network", "net", "--user", "1000", *made, "tiny:1")
    filled = (
        tar.header(Member(name=b"second", size=6, mode=0o644)) + b"second" + bytes(tar.padding(6)) + tar.END
    )
    run("cp", "-", "kept:/data", given=filled)
    run("commit", "--change", "ENV A=1", "kept", "tiny:2")
    run("tag", "tiny:2", "example.test:5000/tiny:3")
    dockerfile = b"FROM tiny:1\nCOPY x /copied\n"
    context = b"".join(
        tar.header(Member(name=name, size=len(data), mode=0o644)) + data + bytes(tar.padding(len(data)))
        for name, data in ((b"Dockerfile", dockerfile), (b"x", b"x"))
    )
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    subprocess.run(
        [docker, "-H", daemon.host, "build", "-t", "tiny:built", "-"],
        input=context + tar.END,
        check=True,
        capture_output=True,
        env=environment,
    )


def described(daemon: Daemon) -> dict[str, object]:
    """What an engine tells of what `fill` made, without what differs from one to the next."""

    def got(path: str) -> object:
        status, body = ask(daemon.socket, "GET", path)
        assert status == 200, body
        return json.loads(body)

    def fields(path: str, *names: str) -> list[object]:
        found: list[object] = []
        for name in names:
            value = got(path)
            for part in name.split("."):
                assert isinstance(value, dict)
                value = value.get(part)
            found.append(value)
        return found

    return {
        "images": {
            name: fields(f"/images/{name}/json", "Id", "RootFS", "Config.Env", "Config.Cmd")
            for name in ("tiny:1", "tiny:2", "example.test:5000/tiny:3", "tiny:built")
        },
        "kept": fields("/containers/kept/json", "State.Status", "State.ExitCode", "Config.Labels", "Image"),
        "made": fields(
            "/containers/made/json",
            *("State.Status", "Config.Env", "Config.User", "HostConfig.RestartPolicy"),
            *("HostConfig.PortBindings", "HostConfig.Binds", "HostConfig.NetworkMode"),
        ),
        "network": fields("/networks/net", "IPAM.Config", "Labels"),
        "volume": fields("/volumes/data", "Name", "Labels"),
        "exported": digests.of(_content(daemon, "/containers/kept/archive?path=/data/second")),
    }


def _content(daemon: Daemon, path: str) -> bytes:
    status, body = ask(daemon.socket, "GET", path)
    assert status == 200, body
    return body
