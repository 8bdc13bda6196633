"""The Engine API, spoken to one daemon.

Version negotiation costs nothing when daemon and client agree: the first request asks for our version, and
only the answer "client version … is too new" (whose Api-Version header says what would do) makes the client
lower its version and ask again. A request whose body cannot be sent twice asks ``/_ping`` first.
"""

from __future__ import annotations

from sampan.client.connection import Address, Answer, Connection, Unreachable, connect
from sampan.client.http import ProtocolError, chunk, quote, request, target
from sampan.errors import Failure
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    Query = dict[str, str]

NEWEST = "1.50"  # what docker 28.2 asks for; its wording and field names are the ones this client knows
OLDEST = "1.24"

_JSON = {"Content-Type": "application/json"}
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


class ApiError(Failure):
    """The daemon refused: ``message`` is its own, ``str()`` puts "Error response from daemon: " before."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.status = status
        self.message = message


def parts(version: str) -> tuple[int, int]:
    """``"1.41"`` as numbers that compare."""
    major, _, minor = version.partition(".")
    return int(major), int(minor or 0)


class Client:
    """A daemon at ``address``. Keeps one idle connection; not for use by two threads.

    ``absent`` is called when nobody listens at the address; if it returns True the connection is tried again
    (this is how a daemon is started on demand). ``patience``: whole seconds that a read waits for the daemon,
    0 for any time.
    """

    __slots__ = (
        "_absent",
        "_agreed",
        "_idle",
        "_patience",
        "address",
        "headers",
        "meanwhile",
        "trace",
        "version",
    )

    def __init__(
        self,
        address: Address,
        *,
        absent: Callable[[Unreachable], bool] | None = None,
        patience: int = 0,
    ) -> None:
        self.address = address
        self.version = NEWEST
        self.headers: dict[str, str] = {}
        self._agreed = False
        self._absent = absent
        self._patience = patience
        self._idle: Connection | None = None
        self.meanwhile: Callable[[], object] | None = None  # done once, while an answer is awaited
        self.trace: Callable[[str], object] | None = None  # told of each request and its status

    # -- plain calls -----------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        headers: Query | None = None,
    ) -> Any:
        """Send ``body`` as JSON and return the answer's JSON value (None for an empty one).

        Raises ``ApiError`` for a status of 400 and above.
        """
        raw = self.raw(method, path, query, body, headers)
        return document.decode(raw) if raw.strip() else None

    def raw(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        headers: Query | None = None,
    ) -> bytes:
        """As ``call``, but the answer's bytes."""
        answer = self.open(method, path, query, body, headers)
        data = answer.read()
        self.release(answer)
        return data

    def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        headers: Query | None = None,
    ) -> Answer:
        """As ``call``, but the body is left to the caller to read: for streams."""
        return self._checked(self._ask(method, path, query, body, headers))

    def upload(
        self,
        path: str,
        query: Query | None,
        source: Iterable[bytes],
        *,
        method: str = "POST",
        kind: str,
        headers: Query | None = None,
    ) -> Answer:
        """Send ``source`` as a chunked body of media type ``kind``; the answer is left unread."""
        self.agree()
        connection = self._connection()
        head = request(
            method,
            target(self._versioned(path), query),
            {**self.headers, **(headers or {}), "Content-Type": kind},
            body=None,
            host=self.address.http_host,
        )
        connection.send(head)
        for piece in source:
            if piece:
                connection.send(chunk(piece))
        connection.send(chunk(b""))
        return self._checked(self._answer(connection, method))

    def begin(
        self, path: str, query: Query | None = None, headers: Query | None = None
    ) -> Callable[[], Answer]:
        """Send a POST without a body; the function returned waits for its answer, as ``open`` does.

        So that several requests are on their way at once. The version has to be agreed on already.
        """
        asked = ("POST", path, query, headers or {}, b"")
        connection = self._sent(*asked)
        return lambda: self._checked(self._awaited(connection, *asked))

    def hijack(
        self, path: str, query: Query | None = None, body: Any = None, headers: Query | None = None
    ) -> tuple[int, bytes, str]:
        """Turn a request into a raw two-way stream: its descriptor, early bytes and content type."""
        answer = self._checked(self._ask("POST", path, query, body, {**UPGRADE, **(headers or {})}))
        fd, early = answer.hijacked()
        return fd, early, answer.headers.get("content-type", "")

    def dial(self) -> int:
        """A connection to the daemon as it is: its descriptor, owned by the caller."""
        return self._connection().sock.detach()

    def release(self, answer: Answer) -> None:
        """Give back the connection of an answer that was read to its end."""
        connection = answer.connection
        if not answer.body.done or answer.headers.get("connection", "").lower() == "close" or self._idle:
            connection.close()
            return
        connection.reused = True
        self._idle = connection

    # -- negotiation -----------------------------------------------------------------------------------

    def ping(self) -> dict[str, str]:
        """The headers of ``/_ping``; agrees on a version."""
        connection = self._connection()
        connection.send(request("HEAD", "/_ping", self.headers, body=b"", host=self.address.http_host))
        answer = self._answer(connection, "HEAD")
        self.release(answer)
        self._agree_on(answer)
        return answer.headers

    def agree(self) -> None:
        """Make sure that the version is one that the daemon takes."""
        if not self._agreed:
            self.ping()

    def _agree_on(self, answer: Answer) -> None:
        offered = answer.headers.get("api-version", "")
        self._agreed = True
        if offered and parts(offered) < parts(self.version):
            self.version = offered if parts(offered) >= parts(OLDEST) else OLDEST

    # -- exchange --------------------------------------------------------------------------------------

    def _versioned(self, path: str) -> str:
        return f"/v{self.version}{path}"

    def _connection(self) -> Connection:
        idle, self._idle = self._idle, None
        if idle is not None:
            return idle
        try:
            connection = connect(self.address)
            if self._patience:
                connection.give_up_after(self._patience)
            return connection
        except Unreachable as error:
            if error.absent and self._absent is not None and self._absent(error):
                return connect(self.address)
            raise

    def _ask(self, method: str, path: str, query: Query | None, body: Any, headers: Query | None) -> Answer:
        """Send ``body`` as JSON, if there is one."""
        if body is None:
            return self._exchange(method, path, query, headers or {}, b"")
        sent = document.encode(body).encode("utf-8", "surrogateescape")
        return self._exchange(method, path, query, {**(headers or {}), **_JSON}, sent)

    def _exchange(self, method: str, path: str, query: Query | None, headers: Query, body: bytes) -> Answer:
        answer = self._send(method, path, query, headers, body)
        if answer.status == 400 and not self._agreed:
            asked = self.version
            self._agree_on(answer)
            if self.version != asked:
                answer.read()
                self.release(answer)
                return self._send(method, path, query, headers, body)
        self._agreed = True
        return answer

    def _send(self, method: str, path: str, query: Query | None, headers: Query, body: bytes) -> Answer:
        connection = self._sent(method, path, query, headers, body)
        self._make_use_of_time()
        return self._awaited(connection, method, path, query, headers, body)

    def _sent(self, method: str, path: str, query: Query | None, headers: Query, body: bytes) -> Connection:
        """The connection on which the request is."""
        data = request(
            method,
            target(self._versioned(path), query),
            {**self.headers, **headers},
            body=body,
            host=self.address.http_host,
        )
        while True:
            connection = self._connection()
            try:
                connection.send(data)
                return connection
            except OSError as error:
                connection.close()
                if not connection.reused:
                    raise Failure(f"error during connect: {error}") from error

    def _awaited(
        self,
        connection: Connection,
        method: str,
        path: str,
        query: Query | None,
        headers: Query,
        body: bytes,
    ) -> Answer:
        """The answer to what ``_sent`` has sent; asks again if the daemon had let the idle connection go."""
        try:
            answer = connection.answer(method)
        except (OSError, ProtocolError) as error:
            if connection.reused and not connection.early:
                connection.close()
                again = self._sent(method, path, query, headers, body)
                return self._awaited(again, method, path, query, headers, body)
            raise Failure(f"error during connect: {error}") from error
        if self.trace is not None:
            self.trace(f"{method} {target(self._versioned(path), query)}: {answer.status}")
        return answer

    def _make_use_of_time(self) -> None:
        if self.meanwhile is not None:
            work, self.meanwhile = self.meanwhile, None
            work()

    def _answer(self, connection: Connection, method: str) -> Answer:
        try:
            return connection.answer(method)
        except (OSError, ProtocolError) as error:
            raise Failure(f"error during connect: {error}") from error

    def _checked(self, answer: Answer) -> Answer:
        if answer.status < 400:
            return answer
        text = answer.read().decode("utf-8", "replace").strip()
        self.release(answer)
        raise ApiError(answer.status, _message(text, answer.status))


def _message(text: str, status: int) -> str:
    try:
        value = document.decode(text)
    except ValueError:
        return text or f"the daemon answered with status {status} and no message"
    if isinstance(value, dict) and isinstance(value.get("message"), str):
        return str(value["message"]).strip()
    return text


def segment(name: str) -> str:
    """A name or id as one segment of a path; image references keep their slashes and colons."""
    return quote(name, safe="/:@")


def json_stream(answer: Answer) -> Iterator[Any]:
    """The values of a streamed body of JSON lines, as they come."""
    stream = document.Stream()
    for piece in answer.pieces():
        yield from stream.feed(piece)
    yield from stream.close()
