"""The daemon's end of the zygote: found alive or started anew, and replaced when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence

from sampan.errors import Internal
from sampan.linux import mount
from sampan.runtime.attendants import Attendants
from sampan.sandbox import channel
from sampan.sandbox.edition import edition
from sampan.sandbox.messages import PROTOCOL
from sampan.sandbox.zygote import SOCKET

log = logging.getLogger(__name__)

_GREETING_TIMEOUT = 10.0
# What is ending or starting is waited for as long as a machine that is busy, or emulated, may take.
_START_TIMEOUT = 60.0
_END_PATIENCE = 10.0


class Zygote:
    """A connection to the zygote of ``exec_root``, which lives in the cgroup ``group``.

    ``descriptors`` is the soft limit of open files that containers start with, by default this process's.
    """

    def __init__(
        self, exec_root: str, log_path: str, *, group: str = "", descriptors: int | None = None
    ) -> None:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._descriptors = soft if descriptors is None else descriptors
        self._exec_root = exec_root
        self._edition = edition()
        self._group = group
        self._log_path = log_path
        self._socket: socket.socket | None = None
        self._starting = asyncio.Lock()
        self.pid = 0
        self._child = 0
        self._watched = False
        self.attendants = Attendants(self.request)

    async def request(self, document: bytes, fds: Sequence[int]) -> None:
        """Send a request, to a new zygote if the old one is gone. Raises Internal when none can be had."""
        for attempt in range(2):
            sock = await self._connected()
            try:
                channel.send(sock, document, fds)
                return
            except OSError as error:
                log.warning("the zygote (pid %d) is gone: %s", self.pid, error)
                self._drop()
                if attempt:
                    raise Internal(f"the container launcher cannot be reached: {error.strerror}") from error

    def tell(self, document: bytes, fds: Sequence[int]) -> None:
        """Send what needs no answer, if a zygote is there."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                channel.send(self._socket, document, fds)

    def begin(self) -> None:
        """Start one at once, without waiting for it, unless one lives; ``start`` waits."""
        self._socket = self._find_living()
        if self._socket is None:
            self._child = self._launch()

    async def start(self) -> None:
        """Be connected, so that the first launch need not wait."""
        await self._connected()

    def close(self) -> None:
        """Let the zygote go; it ends by itself once its last keeper has. Idempotent."""
        self.attendants.close()
        if self._socket is None and self._child:
            # Begun and never spoken to: it would wait for ever. Its group can be removed once it has ended.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._child, signal.SIGKILL)
                os.waitpid(self._child, 0)
            self._child = 0
        self._drop()

    async def gone(self) -> None:
        """Wait for the end of a zygote that was let go and has no keepers, so that nothing of it is left."""
        if self.pid:
            await _ended(self.pid, patience=_END_PATIENCE)

    async def _connected(self) -> socket.socket:
        async with self._starting:
            if self._socket is None:
                self._adopt(self._find_living() or await self._spawn())
            elif not self._watched:
                self._adopt(self._socket)
            assert self._socket is not None
            return self._socket

    def _adopt(self, sock: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(sock.fileno(), self._hung_up, sock)
        self._socket, self._watched = sock, True

    def _find_living(self, *, ours: bool = False) -> socket.socket | None:
        """A zygote of this code that an earlier daemon left; another is left to its keepers.

        ``ours``: any that speaks our language will do, since it was started just now. The package may have
        been replaced while this daemon ran; Internal if the new one speaks another.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.settimeout(_GREETING_TIMEOUT)
            sock.connect(f"{self._exec_root}/{SOCKET}")
            hello = channel.receive(sock)
            said: dict[str, object] = hello[0] if hello else {}
            speaks = said.get("protocol") == PROTOCOL
            if speaks and (ours or said.get("edition") == self._edition):
                self.pid = int(str(said["pid"]))
                return sock
            if ours and said and not speaks:
                sock.close()
                raise Internal("the package was replaced: containers start again once the daemon was, too")
        except (OSError, ValueError):
            pass
        sock.close()
        return None

    async def _spawn(self) -> socket.socket:
        child = self._child or self._launch()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _START_TIMEOUT
        while loop.time() < deadline and os.waitpid(child, os.WNOHANG) == (0, 0):
            if (sock := self._find_living(ours=True)) is not None:
                self._child = child
                return sock
            await asyncio.sleep(0.005)
        self._child = 0
        raise Internal(f"the container launcher did not start; see {self._log_path}")

    def _launch(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._exec_root}/{SOCKET}")
        return spawn(self._exec_root, self._log_path, self._group, self._descriptors)

    def _hung_up(self, sock: socket.socket) -> None:
        """The zygote sends nothing after its greeting: readable means gone."""
        if self._socket is sock:
            log.warning("the zygote (pid %d) ended", self.pid)
            self._drop()

    def _reap(self) -> None:
        child, self._child = self._child, 0
        if child:
            _bury(child)

    def _drop(self) -> None:
        if self._socket is not None:
            if self._watched:
                asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket, self._watched = None, False
            self._reap()


def _bury(child: int) -> None:
    """Reap a child that is ending, now or a little later."""
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(child, os.WNOHANG) == (0, 0):
            asyncio.get_running_loop().call_later(1.0, _bury, child)


async def _ended(pid: int, *, patience: float) -> None:
    """Return when the process has ended, or after ``patience`` seconds."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(pidfd, over.set)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), patience)
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def spawn(exec_root: str, log_path: str, group: str, descriptors: int) -> int:
    """Start a zygote for ``exec_root``; its pid, to be waited for. Its complaints go to ``log_path``.

    It moves to the cgroup ``group``, if one is named, and takes that away when it ends. Its soft limit of
    open files is ``descriptors``.

    A fresh interpreter without site packages: it carries nothing of the daemon's memory or environment. It is
    executed through a read-only mount of its own: whoever gets hold of ``/proc/PID/exe`` of a process that is
    about to become a container's cannot write to the host's interpreter by it (CVE-2019-5736).
    """
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = (
        f"import sys; sys.path.append({package!r}); "
        "import sampan.sandbox.__main__ as m; m.main(*sys.argv[1:])"
    )
    interpreter = mount.open_tree(os.path.realpath(sys.executable))
    try:
        mount.mount_setattr(interpreter, attr_set=mount.MOUNT_ATTR_RDONLY)
        return _spawn(f"/proc/self/fd/{interpreter}", code, (exec_root, group, str(descriptors)), log_path)
    finally:
        os.close(interpreter)


def _spawn(interpreter: str, code: str, arguments: tuple[str, ...], log_path: str) -> int:
    to_log = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        interpreter,
        [sys.executable, "-I", "-S", "-B", "-c", code, *arguments],
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log_path, to_log, 0o640),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ),
        setsid=True,
        setsigmask=(),
    )
