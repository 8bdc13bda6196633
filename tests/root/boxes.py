"""Containers for the runtime's tests: a busybox root, a zygote of one's own, and a client at each stream."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sampan.runtime.runtime import Runtime, Task
from sampan.runtime.zygote import Zygote
from sampan.sandbox import cgroups
from sampan.sandbox.messages import AttachOptions, Exit, Launch, LogFile, RootFilesystem
from sampan.spec.runtime import default_spec

if TYPE_CHECKING:
    from sampan.spec.runtime import Spec

T = TypeVar("T")
FIRST_ID, IDS = 200_000, 65_536
BUSYBOX = "/bin/busybox"


class Stream:
    """A client's end of a connection, given away to the keeper by its other end."""

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair()
        self.ours.setblocking(False)

    def detach(self) -> tuple[socket.socket, bytes]:
        return self._theirs, b""

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send input; with ``end`` close this direction. A program that is gone already does not mind."""
        with suppress(BrokenPipeError):
            await asyncio.get_running_loop().sock_sendall(self.ours, data)
            if end:
                self.ours.shutdown(socket.SHUT_WR)

    async def read_until(self, marker: bytes) -> bytes:
        """What arrives up to and including ``marker``."""
        found = b""
        while marker not in found:
            data = await asyncio.get_running_loop().sock_recv(self.ours, 65536)
            assert data, f"ended before {marker!r}: {found!r}"
            found += data
        return found

    async def read(self) -> bytes:
        """Everything until the end."""
        found = b""
        while data := await asyncio.get_running_loop().sock_recv(self.ours, 65536):
            found += data
        self.ours.close()
        return found


@dataclass(kw_only=True)
class Result:
    exit: Exit
    output: bytes

    @property
    def lines(self) -> list[str]:
        return self.output.decode().splitlines()


@dataclass(kw_only=True)
class Box:
    """A place for containers: ``directory`` holds layers, bundles and states."""

    directory: Path
    private_users: bool
    runtime: Runtime = field(init=False)
    zygote: Zygote = field(init=False)

    def __post_init__(self) -> None:
        self.parent = f"/sampan-test-{uuid.uuid4().hex[:8]}"
        for name in ("run", "state", "layers"):
            (self.directory / name).mkdir()
        make_root(self.directory / "layers/1/fs")
        self.zygote = Zygote(str(self.directory / "run"), str(self.directory / "zygote.log"))
        self.runtime = Runtime(self.zygote, str(self.directory / "run"))

    @property
    def image(self) -> Path:
        """The root that all containers of this box have below their own changes."""
        return self.directory / "layers/1/fs"

    def launch(
        self, *args: str, name: str = "", change: Callable[[Spec], object] | None = None, **more: Any
    ) -> Launch:
        name = name or uuid.uuid4().hex[:12]
        for path in (f"run/{name}", f"state/{name}", f"layers/{name}/fs", f"layers/{name}/work"):
            (self.directory / path).mkdir(parents=True, exist_ok=True)
        spec = default_spec()
        spec["process"]["args"] = list(args)
        spec["linux"]["cgroupsPath"] = f"{self.parent}/{name}"
        spec["linux"]["namespaces"].append({"type": "cgroup"})
        spec["hostname"] = name
        if self.private_users:
            spec["linux"]["namespaces"].append({"type": "user"})
            spec["linux"]["uidMappings"] = [{"containerID": 0, "hostID": FIRST_ID, "size": IDS}]
            spec["linux"]["gidMappings"] = [{"containerID": 0, "hostID": FIRST_ID, "size": IDS}]
        if change:
            change(spec)
        more.setdefault("log", LogFile(path=str(self.directory / f"state/{name}/log.json")))
        return Launch(
            id=name,
            bundle=str(self.directory / f"run/{name}"),
            state=str(self.directory / f"state/{name}"),
            spec=spec,
            root=RootFilesystem(
                base=str(self.directory / "layers"), lowers=("1/fs",), upper=f"{name}/fs", work=f"{name}/work"
            ),
            **more,
        )

    async def start(self, launch: Launch, **options: Any) -> tuple[Task, Stream]:
        """Start with one client on all streams, not multiplexed unless asked."""
        stream = Stream()
        defaults = {"stdin": True, "stdout": True, "stderr": True, "multiplex": False}
        task = await self.runtime.launch(launch, [(stream, AttachOptions(**{**defaults, **options}))])
        return task, stream

    async def finish(self, launch: Launch, stdin: bytes = b"", **options: Any) -> Result:
        task, stream = await self.start(launch, **options)
        await stream.send(stdin, end=True)
        output = await stream.read()
        return Result(exit=await task.exited, output=output)

    async def sh(self, script: str, **more: Any) -> Result:
        return await self.finish(self.launch("sh", "-c", script, **more))

    async def close(self) -> None:
        await self.runtime.settle()
        self.zygote.close()
        cgroups.detect().remove_parent(self.parent)

    def run(self, work: Callable[[Box], Awaitable[T]]) -> T:
        """Run a coroutine against this box; every container must have ended by then."""

        async def inside() -> T:
            try:
                return await asyncio.wait_for(work(self), 120)
            finally:
                await self.close()

        return asyncio.run(inside())


def make_root(root: Path) -> None:
    for name in ("bin", "etc", "tmp", "root", "proc", "sys", "dev"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in subprocess.check_output([BUSYBOX, "--list"], text=True).split():
        if applet != "busybox":
            os.symlink("busybox", root / "bin" / applet)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nfisher:x:1000:1000::/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nfisher:x:1000:\nnets:x:2000:fisher\n")
