"""The client's end of a build's session: it answers what the engine asks, and yields what the engine tells.

The engine gets what the user named and nothing else: files of the contexts (``buildfolder``), secrets and
agents by the ids of the command line, a terminal if ``--shell-on-failure`` says so. One poll loop, no thread.

Law: what is long to send goes piece by piece, and in between what came is read: so an engine that sends while
it is sent to never waits for us while we wait for it.
"""

from __future__ import annotations

import _socket
import os
import select

from sampan.errors import Failure
from sampan.wire import document, sessions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Protocol

    from sampan.cli.buildfolder import Folder

    class Sink(Protocol):
        """Where a result goes."""

        def take(self, pieces: Iterator[bytes]) -> None: ...


_PIECE = 1 << 18
_ACTIVE = 1 << 16


class Answers:
    """What may be answered. ``secrets`` read a secret, ``agents`` are the sockets of agents, by id;
    ``outputs`` take the results in their order; ``terminal`` whether a shell may be opened here."""

    def __init__(
        self,
        *,
        contexts: Mapping[str, Folder],
        archive: Iterator[bytes] | None = None,
        secrets: Mapping[str, Callable[[], bytes]] | None = None,
        agents: Mapping[str, str] | None = None,
        outputs: list[Sink] | None = None,
        terminal: bool = False,
    ) -> None:
        self.contexts = contexts
        self.archive = archive
        self.secrets = secrets or {}
        self.agents = agents or {}
        self.outputs = outputs or []
        self.terminal = terminal


class Conversation:
    """The session on the connection ``fd``, owned from now on; ``early`` was received on it already."""

    def __init__(self, fd: int, early: bytes, hello: dict[str, Any], answers: Answers) -> None:
        self._sock = _socket.socket(fileno=fd)
        self._answers = answers
        self._splitter = sessions.Splitter()
        self._frames: list[tuple[int, int, bytes]] = []
        self._told: list[Any] = []
        self._sending: list[tuple[int, Iterator[bytes]]] = []
        self._pipes: dict[int, int] = {}  # channel by descriptor
        self._agents: dict[int, _socket.socket] = {}
        self._shell: _Terminal | None = None
        self._taking = 0  # the channel of the result that is taken
        self._taken: list[bytes] = []
        self._complete = False
        self._over = False
        self._closed = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._early = early
        self._send(sessions.HELLO, 0, document.encode(hello).encode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """End it, wherever it is."""
        if self._shell is not None:
            self._shell.close()
        for sock in self._agents.values():
            sock.close()
        self._sock.close()

    def messages(self) -> Iterator[Any]:
        """What the engine tells, until the build is over. Raises Failure in the engine's words."""
        if self._early:
            self._feed(self._early)
        while True:
            while self._told:
                yield self._told.pop(0)
            if self._over:
                return
            if self._closed:
                raise Failure("unexpected EOF")
            self._turn()

    # ------------------------------------------------------------------ the connection

    def _send(self, kind: int, channel: int, payload: bytes = b"") -> None:
        try:
            self._sock.sendall(sessions.frame(kind, channel, payload))
        except (BrokenPipeError, ConnectionResetError):
            return  # what it said before it went is still to be read

    def _turn(self) -> None:
        for fd, _ in self._poll.poll(0 if self._sending else None):
            if fd == self._sock.fileno():
                self._receive()
            elif self._shell is not None and fd in self._shell.descriptors:
                self._type(self._shell, fd)
            else:
                self._from_agent(fd)
        if self._sending:
            channel, pieces = self._sending[0]
            if not self._step(channel, pieces):
                self._sending.pop(0)

    def _step(self, channel: int, pieces: Iterator[bytes]) -> bool:
        """Send the next piece of an answer; False at its end."""
        try:
            piece = next(pieces, None)
        except Failure as error:
            self._fail(channel, str(error))
            return False
        if piece is None:
            self._send(sessions.END, channel)
            return False
        for at in range(0, len(piece), sessions.MAX_DATA):
            self._send(sessions.DATA, channel, piece[at : at + sessions.MAX_DATA])
        return True

    def _fail(self, channel: int, reason: str) -> None:
        self._send(sessions.FAIL, channel, reason.encode("utf-8", "surrogateescape")[:4096])

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_PIECE)
        except ConnectionResetError:
            data = b""
        if data:
            self._feed(data)
        else:
            self._closed = True

    def _feed(self, data: bytes) -> None:
        try:
            self._frames += self._splitter.feed(data)
            self._work()
        except (sessions.MalformedFrame, ValueError):
            raise Failure("the engine does not speak as a build's session does") from None

    def _work(self) -> None:
        """Take what has come, in order; the taking of a result goes on with what it left."""
        while self._frames:
            self._take(*self._frames.pop(0))

    def _take(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == sessions.NOTE and channel == 0:
            self._told.append(document.decode(payload))
        elif kind == sessions.END and channel == 0:
            self._over = True
        elif kind == sessions.ASK:
            question = document.decode(payload)
            if not isinstance(question, dict):
                raise ValueError("no question")
            self._asked(channel, question)
        elif channel == self._taking:
            if kind == sessions.END:
                self._complete = True
            elif kind == sessions.DATA:
                self._taken.append(payload)
        elif self._shell is not None and channel == self._shell.channel:
            self._shell.show(payload)
            if kind == sessions.END:
                self._leave()
        elif channel in self._agents:
            self._to_agent(kind, channel, payload)

    # ------------------------------------------------------------------ answers

    def _asked(self, channel: int, question: dict[str, Any]) -> None:
        answers = {
            "list": self._list,
            "digests": self._digests,
            "fetch": self._fetch,
            "archive": self._archive,
            "secret": self._secret,
            "agent": self._agent,
            "output": self._output,
            "shell": self._open_shell,
        }
        answer = answers.get(question.get("service", ""))
        if answer is None:
            self._fail(channel, "this client has no such service")
            return
        try:
            answer(channel, question)
        except Failure as error:
            self._fail(channel, str(error))

    def _context(self, question: dict[str, Any]) -> Folder:
        folder = self._answers.contexts.get(question.get("context", ""))
        if folder is None:
            raise Failure("the engine asks for a context that was not named")
        return folder

    def _list(self, channel: int, question: dict[str, Any]) -> None:
        paths = [str(path) for path in _several(question, "paths")]
        self._sending.append((channel, self._context(question).entries(paths)))

    def _digests(self, channel: int, question: dict[str, Any]) -> None:
        self._sending.append((channel, self._context(question).digests(_several(question, "numbers"))))

    def _fetch(self, channel: int, question: dict[str, Any]) -> None:
        self._sending.append((channel, self._context(question).fetch(_several(question, "numbers"))))

    def _archive(self, channel: int, _question: dict[str, Any]) -> None:
        archive, self._answers.archive = self._answers.archive, None
        if archive is None:
            raise Failure("there is no archive to send")
        self._sending.append((channel, archive))

    def _secret(self, channel: int, question: dict[str, Any]) -> None:
        read = self._answers.secrets.get(str(question.get("id")))
        if read is None:
            raise Failure("not found")
        self._sending.append((channel, iter((read(),))))

    def _agent(self, channel: int, question: dict[str, Any]) -> None:
        path = self._answers.agents.get(str(question.get("id")))
        if path is None:
            raise Failure("not found")
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            sock.connect(path)
        except OSError as error:
            sock.close()
            raise Failure(f"ssh agent {path}: {os.strerror(error.errno or 0).lower()}") from None
        self._agents[channel] = sock
        self._pipes[sock.fileno()] = channel
        self._poll.register(sock.fileno(), select.POLLIN)
        self._send(sessions.NOTE, channel, b"true")

    def _to_agent(self, kind: int, channel: int, payload: bytes) -> None:
        sock = self._agents[channel]
        try:
            if kind == sessions.DATA:
                sock.sendall(payload)
                return
        except OSError:
            pass
        self._forget_agent(channel)

    def _from_agent(self, fd: int) -> None:
        channel = self._pipes.get(fd)
        if channel is None:
            return  # it ended in the same turn
        try:
            data = self._agents[channel].recv(_ACTIVE, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return  # another has the descriptor of one that ended in the same turn
        except OSError:
            data = b""
        if data:
            self._send(sessions.DATA, channel, data)
        else:
            self._send(sessions.END, channel)
            self._forget_agent(channel)

    def _forget_agent(self, channel: int) -> None:
        sock = self._agents.pop(channel)
        self._poll.unregister(sock.fileno())
        del self._pipes[sock.fileno()]
        sock.close()

    # ------------------------------------------------------------------ results

    def _output(self, channel: int, question: dict[str, Any]) -> None:
        number = question.get("number")
        outputs = self._answers.outputs
        if not isinstance(number, int) or not 0 <= number < len(outputs) or self._taking:
            raise Failure("the engine sends a result that was not asked for")
        self._taking = channel
        try:
            outputs[number].take(self._pieces())
            for _ in self._pieces():
                pass  # what follows the end of an archive
        finally:
            self._taking = 0
            self._taken.clear()
            self._complete = False
        self._send(sessions.END, channel)

    def _pieces(self) -> Iterator[bytes]:
        """A result as it comes. Nothing else goes on meanwhile: the build is over."""
        while True:
            taken, self._taken = self._taken, []
            yield from taken
            if self._complete and not self._taken:
                return
            if self._closed:
                raise Failure("unexpected EOF")
            if self._frames:
                self._work()
            elif not self._complete:
                self._receive()

    # ------------------------------------------------------------------ a shell

    def _open_shell(self, channel: int, _question: dict[str, Any]) -> None:
        if not self._answers.terminal or self._shell is not None:
            raise Failure("there is no terminal")
        self._shell = _Terminal(channel)
        for fd in self._shell.descriptors:
            self._poll.register(fd, select.POLLIN)
        self._send(sessions.NOTE, channel, self._shell.size())

    def _type(self, shell: _Terminal, fd: int) -> None:
        if fd != 0:
            shell.heard()
            self._send(sessions.NOTE, shell.channel, shell.size())
        elif data := os.read(0, _ACTIVE):
            self._send(sessions.DATA, shell.channel, data)
        else:
            self._poll.unregister(0)
            shell.descriptors.remove(0)
            self._send(sessions.END, shell.channel)

    def _leave(self) -> None:
        shell, self._shell = self._shell, None
        if shell is not None:
            for fd in shell.descriptors:
                self._poll.unregister(fd)
            shell.close()


def _several(question: dict[str, Any], name: str) -> list[Any]:
    """An argument that is a list. ValueError for another."""
    found = question.get(name)
    if not isinstance(found, list):
        raise ValueError(f"{name} is no list")
    return found


class _Terminal:
    """Our terminal in raw mode, until it is closed."""

    def __init__(self, channel: int) -> None:
        import _signal  # type: ignore[import-not-found]  # "signal" builds enums: 2 ms

        from sampan.cli.session import Signals
        from sampan.cli.terminal import Raw

        self.channel = channel
        self._raw = Raw(0)
        self._signals = Signals(frozenset((_signal.SIGWINCH,)))
        self._raw.__enter__()
        self._signals.__enter__()
        self.descriptors = [0, self._signals.fd]

    def size(self) -> bytes:
        from sampan.cli.terminal import size

        rows, columns = size(1)
        return f"[{rows},{columns}]".encode()

    def heard(self) -> None:
        """The size may have changed."""
        self._signals.read()

    def show(self, data: bytes) -> None:
        from sampan.cli.context import write

        write(1, data)

    def close(self) -> None:
        self._signals.__exit__()
        self._raw.__exit__()
