"""Requests to one registry: connections, trust, patience, redirects and who asks.

Laws:
- Credentials go to the registry that asked for them and to the token server that it named, over TLS unless
  the registry itself is spoken to without; a redirect to another host carries none.
- What may be repeated (GET, HEAD) is, a few times and ever more slowly, or as the registry says
  (``Retry-After``): after a broken connection, 429 and 5xx that pass. A registry that wants to be left alone
  for longer than half a minute is not waited for: the user is told what it says.
- A registry that says nothing for a minute is given up.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    SSLError,
)

from sampan import __version__
from sampan.errors import Failure, Unavailable
from sampan.registry.auth import Authorizer
from sampan.registry.hosts import Endpoint, tls_context
from sampan.registry.proxies import Proxy, proxy_of

ATTEMPTS = 5
FIRST_PAUSE = 0.25  # seconds; doubled each time
LONGEST_PAUSE = 30.0
REDIRECTS = 10
BLOCK = 1 << 20
DOCUMENT_LIMIT = 4 << 20  # bytes, as the specification advises for manifests
_TIMEOUT = urllib3.Timeout(connect=10.0, read=60.0)
_REMEMBERED = 300.0  # seconds for which it is known how an insecure registry is spoken to
_PASSING = frozenset((429, 502, 503, 504))
_REDIRECTED = frozenset((301, 302, 303, 307, 308))
_AGENT = f"sampan/{__version__}"


class Cancelled(Exception):
    """Whoever wanted the answer has gone."""


class Broken(Failure):
    """The connection broke; the same request may do better."""


class Schemes:
    """How insecure registries were last spoken to: it is not tried out each time. Threads share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[str, tuple[str, float]] = {}

    def known(self, host: str) -> str | None:
        scheme, end = self._found.get(host, (None, 0.0))
        return scheme if self._clock() < end else None

    def learn(self, host: str, scheme: str) -> None:
        self._found[host] = (scheme, self._clock() + _REMEMBERED)

    def forget(self, host: str) -> None:
        self._found.pop(host, None)


class Response:
    """An answer whose body is still to be read. Close it."""

    def __init__(self, raw: Any, url: str, *, shown: bool) -> None:
        """``shown`` says whether the request carried anything to prove who asks."""
        self._raw = raw
        self.url = url
        self.shown = shown
        self.status: int = raw.status
        self.headers: Mapping[str, str] = raw.headers

    @property
    def challenge(self) -> str:
        """What the registry wants to see first."""
        return self.headers.get("WWW-Authenticate", "")

    def blocks(self) -> Iterator[bytes]:
        """The body as it comes. Raises Broken when it ends before its end."""
        try:
            while block := self._raw.read(BLOCK, decode_content=False):
                yield block
        except (HTTPError, OSError) as error:
            raise Broken(f"{self.url}: the connection broke: {_plain(error)}") from error

    def document(self, limit: int = DOCUMENT_LIMIT) -> bytes:
        """The body, of which no more than ``limit`` bytes are read. Raises Broken, Unavailable if longer."""
        found = bytearray()
        for block in self.blocks():
            found += block
            if len(found) > limit:
                raise Unavailable(f"{self.url}: the answer is larger than the limit of {limit} bytes")
        return bytes(found)

    def close(self) -> None:
        """Read the little that may be left, so that the connection serves again; a long rest ends it."""
        with contextlib.suppress(HTTPError, OSError):
            if self._short():
                self._raw.drain_conn()
            else:
                self._raw.close()
        self._raw.release_conn()

    def _short(self) -> bool:
        length = self.headers.get("Content-Length", "")
        return length.isdecimal() and len(length) <= len(str(BLOCK)) and int(length) <= BLOCK

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transport:
    """Requests to ``endpoint`` in the name of ``authorizer``. Threads may share it.

    ``cancelled`` makes every pause and every request of this transport end with Cancelled.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        authorizer: Authorizer,
        cancelled: threading.Event,
        schemes: Schemes | None = None,
        waiting: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """``waiting`` hears of every pause before another attempt, in seconds."""
        self.endpoint = endpoint
        self._authorizer = authorizer
        self._cancelled = cancelled
        self._schemes = schemes or Schemes()
        self._waiting = waiting
        self._pools: dict[tuple[Proxy | None, bool], urllib3.PoolManager] = {}
        self._scheme: str | None = None
        self._choosing = threading.Lock()
        self._pooling = threading.Lock()

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()

    @property
    def base(self) -> str:
        """``scheme://host/path`` of the registry, once it has been reached."""
        return f"{self._scheme or self.endpoint.schemes[0]}://{self.endpoint.host}{self.endpoint.path}"

    def request(
        self,
        method: str,
        target: str,
        *,
        scopes: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
        length: int | None = None,
    ) -> Response:
        """The answer, whatever its status. ``target`` is a path below the registry or a URL from it.

        ``body`` of ``length`` bytes is sent as it is. Raises Unavailable when the registry cannot be reached,
        Broken when it hung up, Cancelled.
        """
        if self._scheme is None:
            self._choose_scheme()
        url = urljoin(self.base + "/", target) if "://" not in target else target
        given = {"User-Agent": _AGENT, **(headers or {})}
        if length is not None:
            given["Content-Length"] = str(length)
        for attempt in range(2):
            authorization = self._authorizer.header(scopes) if self._is_own(url) else None
            own = {"Authorization": authorization} if authorization else {}
            answer = self._send(method, url, {**given, **own}, body)
            if answer.status != 401 or attempt or not self._is_own(answer.url) or not _repeatable(body):
                break
            if not self._authorizer.challenged(
                answer.challenge, scopes, self._fetch, secure=self._scheme == "https", shown=authorization
            ):
                break
            answer.close()
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
        return answer

    # ------------------------------------------------------------------ one request

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | IO[bytes] | None
    ) -> Response:
        """Follow redirects, wait and try again where that is right."""
        repeatable = method in ("GET", "HEAD")
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1 or not repeatable
            try:
                answer = self._follow(method, url, headers, body)
            except Broken:
                if last:
                    raise
                self._pause(attempt, None)
                continue
            wait = retry_after(answer.headers.get("Retry-After", ""))
            if answer.status not in _PASSING or last or (wait or 0) > LONGEST_PAUSE:
                return answer  # what it says is for the user, who may have better to do than to wait
            answer.close()
            self._pause(attempt, wait)
        raise AssertionError("unreachable")

    def _follow(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | IO[bytes] | None
    ) -> Response:
        for _ in range(REDIRECTS):
            answer = self._once(method, url, headers, body)
            location = answer.headers.get("Location", "")
            if answer.status not in _REDIRECTED or not location or method not in ("GET", "HEAD"):
                return answer
            answer.close()
            target = joined(url, location)
            if urlsplit(target).scheme not in ("http", "https"):
                raise Unavailable(f"{url} redirects to {target[:200]}, which is no address of a registry")
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
                raise Unavailable(f"{url} redirects to {target[:200]}, which is not protected: not followed")
            if urlsplit(target)[:2] != urlsplit(url)[:2]:
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            url = target
        raise Unavailable(f"{url}: more than {REDIRECTS} redirects")

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | IO[bytes] | None
    ) -> Response:
        if self._cancelled.is_set():
            raise Cancelled
        try:
            raw = self._pool(url).request(
                method,
                url,
                body=body,
                headers=dict(headers),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=_TIMEOUT,
            )
        except (HTTPError, OSError) as error:
            self._schemes.forget(self.endpoint.host)
            raise _unreachable(method, url, error) from error
        except (ValueError, http.client.HTTPException) as error:  # the registry chose what cannot be sent
            raise Unavailable(f"{method.capitalize()} {url[:200]!r}: {_plain(error)}") from error
        return Response(raw, url, shown="Authorization" in headers)

    def _pool(self, url: str) -> urllib3.PoolManager:
        proxy, secure = proxy_of(url), url.startswith("https:")
        with self._pooling:
            pool = self._pools.get((proxy, secure))
            if pool is None:
                options: dict[str, Any] = {"maxsize": 16, "blocksize": BLOCK, "num_pools": 8}
                if secure or proxy:  # reading the authorities takes longer than a short request
                    options["ssl_context"] = tls_context(self.endpoint)
                pool = through(proxy, **options)
                self._pools[proxy, secure] = pool
            return pool

    def _pause(self, attempt: int, wanted: float | None) -> None:
        seconds = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE) if wanted is None else wanted
        self._waiting(seconds)
        if self._cancelled.wait(seconds):
            raise Cancelled

    def _fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Response:
        """A request to a token server."""
        return self._send(method, url, {"User-Agent": _AGENT, **headers}, body)

    def _is_own(self, url: str) -> bool:
        return url.startswith(f"{self._scheme}://{self.endpoint.host}/")

    # ------------------------------------------------------------------ the first contact

    def _choose_scheme(self) -> None:
        """Find out how an insecure registry is spoken to: with TLS if it can, without if it cannot."""
        host, schemes = self.endpoint.host, self.endpoint.schemes
        with self._choosing:
            if self._scheme is None:
                known = schemes[0] if len(schemes) == 1 else self._schemes.known(host)
                self._scheme = known if known in schemes else self._try_schemes()

    def _try_schemes(self) -> str:
        host = self.endpoint.host
        failure: Failure | None = None
        for scheme in self.endpoint.schemes:
            try:
                self._follow("GET", f"{scheme}://{host}/v2/", {"User-Agent": _AGENT}, None).close()
            except Failure as error:
                failure = error
                continue
            self._schemes.learn(host, scheme)
            return scheme
        assert failure is not None
        raise failure


def retry_after(header: str, now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a server asks for (RFC 9110, "Retry-After": a number or a date); None if it does not."""
    if header.isascii() and header.isdecimal():
        return float(header[:20])
    found = email.utils.parsedate_tz(header)
    try:
        return max(0.0, email.utils.mktime_tz(found) - now()) if found else None
    except (ValueError, OverflowError):
        return None


def _repeatable(body: bytes | IO[bytes] | None) -> bool:
    return body is None or isinstance(body, bytes) or body.seekable()


def joined(url: str, location: str) -> str:
    """The URL that ``location`` means at ``url``. Unavailable if it is none."""
    try:
        target = urljoin(url, location)
        urlsplit(target)
    except ValueError as error:
        raise Unavailable(f"{url} names an address that is none: {location[:200]!r}") from error
    return target


def through(proxy: Proxy | None, **options: Any) -> urllib3.PoolManager:
    """Connections through a proxy, or direct ones."""
    if proxy is None:
        return urllib3.PoolManager(**options)
    return urllib3.ProxyManager(proxy.url, proxy_headers=dict(proxy.headers), **options)


def _unreachable(method: str, url: str, error: Exception) -> Failure:
    """In the words that Go's client has for it, which scripts and people look for."""
    cause: BaseException = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    where = f'{method.capitalize()} "{url}"'
    host = urlsplit(url).netloc
    if isinstance(cause, NameResolutionError) or isinstance(cause.__cause__, socket.gaierror):
        return Unavailable(f"{where}: dial tcp: lookup {urlsplit(url).hostname}: no such host")
    if isinstance(cause, NewConnectionError):
        reason = getattr(cause.__cause__, "strerror", None) or "connection refused"
        return Unavailable(f"{where}: dial tcp {host}: connect: {reason.lower()}")
    if isinstance(cause, SSLError | ssl.SSLError):
        text = str(cause)
        if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text.lower():
            return Unavailable(f"{where}: http: server gave HTTP response to HTTPS client")
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return Unavailable(f"{where}: tls: failed to verify certificate: x509: {_reason(text)}")
        return Unavailable(f"{where}: tls: {_plain(cause)}")
    if isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError):
        return Broken(f"{where}: net/http: request canceled (Client.Timeout exceeded while awaiting headers)")
    if isinstance(cause, ProtocolError | OSError):
        return Broken(f"{where}: the connection broke: {_plain(cause)}")
    return Unavailable(f"{where}: {_plain(cause)}")


def _reason(text: str) -> str:
    if "self-signed" in text or "unable to get local issuer" in text:
        return "certificate signed by unknown authority"
    if "Hostname mismatch" in text or "IP address mismatch" in text:
        return "certificate is valid for another name"
    if "expired" in text:
        return "certificate has expired or is not yet valid"
    return text[:200]


def _plain(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
