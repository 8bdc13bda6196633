"""Reading and writing images at whichever address of a registry answers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlencode

from sampan.errors import Failure, NotFound, Unauthenticated, Unavailable
from sampan.registry import hosts, refusals
from sampan.registry.auth import Authorizer
from sampan.registry.credentials import NOBODY, Credentials
from sampan.registry.hosts import Endpoint
from sampan.registry.repository import Document, Repository
from sampan.registry.settings import RegistrySettings
from sampan.registry.transport import Cancelled, Schemes, Transport
from sampan.spec import foreign
from sampan.spec.reference import DEFAULT_DOMAIN, Reference

T = TypeVar("T")

_SCHEMES = Schemes()
"""What this process knows of registries that may do without TLS."""


class Session:
    """One user's dealings with the registry of one repository. Close it; ``cancel`` from any thread."""

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials,
        settings: RegistrySettings,
        waiting: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """``waiting`` hears, from any thread, how many seconds pass before something is tried again."""
        self._waiting = waiting
        self._reference = reference
        self._credentials = credentials
        self._settings = settings
        self._cancelled = threading.Event()
        self._transports: list[Transport] = []

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        self.cancel()
        for transport in self._transports:
            transport.close()

    def writing(self) -> Repository:
        """The repository at the registry itself."""
        return self._repository(hosts.own(self._reference.domain, self._settings))

    def reading(self, reference: str) -> tuple[Repository, Document]:
        """The first address that has the manifest of a tag or digest, and that manifest."""
        return self._first(lambda repository: (repository, repository.manifest(reference)))

    def tags(self) -> list[str]:
        """Every tag of the repository."""
        return self._first(lambda repository: repository.tags())

    def _first(self, ask: Callable[[Repository], T]) -> T:
        """A mirror that has not got it, or is not there, hands on to the next address."""
        *mirrors, own = hosts.endpoints(self._reference.domain, self._settings)
        for mirror in mirrors:
            with contextlib.suppress(Failure):
                return ask(self._repository(mirror))
        return ask(self._repository(own))

    def _repository(self, endpoint: Endpoint) -> Repository:
        # What a user told the registry is no mirror's to know.
        credentials = NOBODY if endpoint.mirror else self._credentials
        transport = Transport(endpoint, Authorizer(credentials), self._cancelled, _SCHEMES, self._waiting)
        self._transports.append(transport)
        return Repository(transport, self._reference.path, self._reference.familiar_name)


def log_in(domain: str, credentials: Credentials, settings: RegistrySettings) -> str:
    """Prove the credentials to a registry; a token that stands for them, if it gives one.

    Raises Unauthenticated when they are wrong.
    """
    authorizer = Authorizer(credentials, lasting=True)
    with _transport(domain, authorizer, settings) as transport:
        answer = transport.request("GET", "v2/")
        with answer:
            if answer.status in (401, 403):
                raise Unauthenticated(f'Get "{answer.url}": unauthorized: incorrect username or password')
            if answer.status == 404:
                raise NotFound(f"{domain} is no registry of version 2")
    return authorizer.identity_token


def search(
    domain: str, term: str, limit: int, credentials: Credentials, settings: RegistrySettings
) -> list[dict[str, Any]]:
    """What a registry finds for a term, by the search of Docker's registry API V1, which Docker Hub keeps."""
    endpoint = Endpoint(host=hosts.HUB_SEARCH) if domain == DEFAULT_DOMAIN else hosts.own(domain, settings)
    transport = Transport(endpoint, Authorizer(credentials), threading.Event(), _SCHEMES)
    target = f"v1/search?{urlencode({'q': term, 'n': limit})}"
    with contextlib.closing(transport), transport.request("GET", target) as answer:
        body = answer.document()
        if answer.status != 200:
            raise refusals.refusal(answer.status, body)
    try:
        results = foreign.decode(body)["results"] or []
        return [one for one in results if isinstance(one, dict) and isinstance(one.get("name"), str)]
    except (ValueError, TypeError, KeyError):
        raise Unavailable(f"{domain} answered a search with nonsense") from None


@contextlib.contextmanager
def _transport(domain: str, authorizer: Authorizer, settings: RegistrySettings) -> Iterator[Transport]:
    transport = Transport(hosts.own(domain, settings), authorizer, threading.Event(), _SCHEMES)
    try:
        yield transport
    finally:
        transport.close()


__all__ = ["Cancelled", "Session", "log_in", "search"]
