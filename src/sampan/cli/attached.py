"""Being attached to a container's life: streams, signals, exit code. For run, start -a and attach."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # "signal" builds enums: 2 ms

from sampan.cli.command import Exit
from sampan.cli.session import WATCHED, Detached, Insistence, Output, Session, Signals, signal_name
from sampan.client.api import UPGRADE, ApiError, segment
from sampan.client.http import ProtocolError
from sampan.errors import Failure
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.context import Context
    from sampan.client.api import Client
    from sampan.client.connection import Answer

DEFAULT_KEYS = "ctrl-p,ctrl-q"


class Wait:
    """An answer to ``/wait`` whose head came, so that the daemon knows of it, and whose body is to come."""

    __slots__ = ("_answer", "_data")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._data = b""

    def fileno(self) -> int:
        """Readable when something of the answer came."""
        return self._answer.connection.fileno()

    def code(self) -> int:
        """Block until the container ended; its exit code. Raises Failure with the engine's reason."""
        try:
            self._data += self._answer.read()
        except (ProtocolError, OSError) as cut:
            raise Failure(f"Error waiting for container: {cut}") from cut
        value = document.decode(self._data) if self._data.strip() else {}
        error = value.get("Error")
        if error and error.get("Message"):
            raise Failure(f"Error waiting for container: {error['Message']}")
        return int(value.get("StatusCode", 0))


class Attachment:
    """Attach to ``identity``; ``run`` starts it and returns its exit code.

    ``streams``: stdin, stdout, stderr. ``condition``: what ``/wait`` waits for. ``keys``: the detach
    sequence. ``proxy``: pass signals on. Failures to attach or start are raised as they come.
    """

    def __init__(
        self,
        context: Context,
        identity: str,
        streams: tuple[bool, bool, bool],
        *,
        tty: bool,
        keys: str,
        proxy: bool,
        condition: str,
        detached: str = "",
    ) -> None:
        self._client = context.client
        self._another: Callable[[], Client] = context.another
        self._path = f"/containers/{segment(identity)}"
        self._stdin, self._stdout, self._stderr = streams
        self._tty = tty
        self._keys = keys
        self._proxy = proxy
        self._condition = condition
        self._side: Client | None = None
        self._insistence = Insistence()
        self._detached = detached

    def run(self, *, start: bool = True) -> int:
        """Attach, start (unless it runs already), carry the streams, and return the exit code."""
        with Signals(self._signals()) as signals:
            attach = self._client.begin(f"{self._path}/attach", self._attach_query(), UPGRADE)
            condition = {"condition": self._condition} if self._condition else None
            waiting = self._client.begin(f"{self._path}/wait", condition)
            session = self._session(attach())
            try:
                wait = Wait(waiting())
                if start:
                    self._start(wait)
                elif self._tty:
                    self._redraw()
                return self._carry(session, signals, wait)
            finally:
                session.close()

    def _signals(self) -> frozenset[int] | None:
        return None if self._proxy else WATCHED

    def _attach_query(self) -> dict[str, str]:
        query = {"stream": "1"}
        for name, wanted in (("stdin", self._stdin), ("stdout", self._stdout), ("stderr", self._stderr)):
            if wanted:
                query[name] = "1"
        if self._keys:
            query["detachKeys"] = self._keys
        return query

    def _session(self, attached: Answer) -> Session:
        fd, early = attached.hijacked()
        escape = None
        if self._tty and self._stdin:
            from sampan.cli.terminal import Escape, detach_keys

            escape = Escape(detach_keys(self._keys or DEFAULT_KEYS)).feed
        output = Output(multiplexed=not self._tty, stdout=self._stdout, stderr=self._stderr)
        session = Session(fd, early, output, stdin=self._stdin, escape=escape)
        session.on_signal = self._signal
        return session

    def _start(self, wait: Wait) -> None:
        self._side = self._another()
        try:
            self._side.raw("POST", f"{self._path}/start")
        except ApiError:
            if self._condition == "removed":
                try:
                    wait.code()  # the daemon removes it; Docker's client returns after that
                except Failure:
                    pass
            raise

    def _carry(self, session: Session, signals: Signals, wait: Wait) -> int:
        if not self._tty:
            session.run(signals)
            return self._ended(signals, wait)
        from sampan.cli.terminal import Raw

        with Raw(0 if self._stdin else -1):
            self._resize()
            try:
                session.run(signals)
            except Detached:
                if self._detached:
                    raise Exit(1, self._detached) from None
                return 0
        return self._ended(signals, wait)

    def _ended(self, signals: Signals, wait: Wait) -> int:
        """The exit code; signals are still passed on while it is awaited."""
        import select

        poll = select.poll()
        poll.register(signals.fd, select.POLLIN)
        poll.register(wait.fileno(), select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if wait.fileno() in ready:
                return wait.code()
            for number in signals.read():
                self._signal(number)

    def _signal(self, number: int) -> None:
        if self._tty and number == _signal.SIGWINCH:
            self._resize()
        elif self._proxy:
            try:
                self._other().raw("POST", f"{self._path}/kill", {"signal": signal_name(number)})
            except Failure:
                pass  # it ended meanwhile
        else:
            self._insistence.hear(number)

    def _other(self) -> Client:
        if self._side is None:
            self._side = self._another()
        return self._side

    def _redraw(self) -> None:
        """Make the program draw again what a newcomer has not seen: a size that changes is a reason to."""
        self._resize(by=1)

    def _resize(self, by: int = 0) -> None:
        from sampan.cli.terminal import size

        rows, columns = size(1)
        if not rows and not columns:
            return
        rows, columns = rows + by, columns + by
        try:
            self._other().raw("POST", f"{self._path}/resize", {"h": str(rows), "w": str(columns)})
        except Failure:
            pass  # not running yet or no more
