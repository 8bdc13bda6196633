"""The image that end-to-end tests run: the host's busybox and its links, as one docker-save archive.

Law: the same busybox gives the same archive byte for byte, so that two engines loaded from it agree on the
image's id.
"""

from __future__ import annotations

import subprocess

from sampan.wire import tar
from sampan.wire.tar import Member
from tests import archives

NAME = "busybox:latest"

_FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n",
    "etc/group": b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n",
    "etc/not-a-program": b"neither a script nor a binary\n",
}
_DIRECTORIES = ("bin", "etc", "root", "home/app", "dev", "proc", "sys", "tmp", "var")


def busybox(program: str = "/bin/busybox") -> bytes:
    """The archive; ``program`` is a static busybox."""
    config = {"Env": ["PATH=/bin"], "Cmd": ["sh"]}
    return archives.pack(archives.docker_files([busybox_layer(program)], [NAME], config=config))


def busybox_layer(program: str = "/bin/busybox") -> bytes:
    """The tar of the image's only layer."""
    with open(program, "rb") as file:
        binary = file.read()
    applets = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    out = b""
    for name in _DIRECTORIES:
        mode = 0o1777 if name == "tmp" else 0o755
        out += tar.header(Member(name=f"{name}/".encode(), kind=tar.DIRECTORY, mode=mode))
    out += _file(b"bin/busybox", binary, mode=0o755)
    for name, data in _FILES.items():
        out += _file(name.encode(), data, mode=0o644)
    for applet in sorted(set(applets) - {"busybox"}):
        out += tar.header(
            Member(name=f"bin/{applet}".encode(), kind=tar.SYMLINK, link=b"busybox", mode=0o777)
        )
    return out + tar.END


def _file(name: bytes, data: bytes, *, mode: int) -> bytes:
    return tar.header(Member(name=name, size=len(data), mode=mode)) + data + bytes(tar.padding(len(data)))
