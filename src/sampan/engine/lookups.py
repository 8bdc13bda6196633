"""Finding and listing containers. In memory; nothing here waits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from msgspec.structs import replace

from sampan.engine.model import Container, Filters, HealthStatus, ListQuery, Status
from sampan.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from sampan.engine.ports import Catalog
    from sampan.engine.store import ContainerStore

_FILTER_WORDS = (
    "ancestor before exited id isolation label name status health since volume network is-task publish expose"
)
_FILTERS = frozenset(_FILTER_WORDS.split())
_STATUSES = frozenset(status.value for status in Status)
_HEALTH = frozenset(HealthStatus)
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d*)?)s)?")

Test: TypeAlias = Callable[[Container], bool]
Containers: TypeAlias = list[Container]
ImageUses: TypeAlias = "list[ImageUse]"
Ids: TypeAlias = list[str]
Tests: TypeAlias = list[Test]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUse:
    """A container that uses an image."""

    container_id: str
    name: str
    running: bool


class Lookups:
    """Answers from the store."""

    def __init__(self, *, store: ContainerStore, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog

    def get(self, ref: str) -> Container:
        """With the ids of the execs that are known."""
        instance = self._store.find(ref)
        if not instance.execs:
            return instance.container
        return replace(instance.container, exec_ids=tuple(instance.execs))

    async def list(self, query: ListQuery) -> Containers:
        """Newest first. InvalidArgument for a filter that Docker does not have."""
        filters = query.filters
        tests: Tests = []
        if filters:
            filters.accept(_FILTERS)
            tests = await self._tests(filters)
        everything = query.all or query.limit > 0 or "status" in filters or "exited" in filters
        found = [instance.container for instance in self._store if not instance.container.temporary]
        if not everything:
            found = [container for container in found if container.state.active]
        if tests:
            found = [container for container in found if all(test(container) for test in tests)]
        found.sort(key=lambda container: container.created, reverse=True)
        found = found[: query.limit] if query.limit > 0 else found
        pairs = {(container.config.image, container.image_id) for container in found}
        meant = {pair for pair in pairs if self._is_meant(*pair)}
        # Shown by its image's id when the reference that it was made from means another image now.
        return [
            container
            if (container.config.image, container.image_id) in meant
            else replace(container, config=replace(container.config, image=container.image_id))
            for container in found
        ]

    def _is_meant(self, reference: str, image_id: str) -> bool:
        """Whether a reference still means an image."""
        try:
            return self._catalog.means(reference, image_id)
        except (NotFound, InvalidArgument):
            return False

    def everything(self) -> Iterable[Container]:
        """Every container there is, in no order."""
        return [instance.container for instance in self._store]

    def users_of_image(self, image_id: str) -> ImageUses:
        """The containers made from an image, those being created included."""
        return [
            ImageUse(container_id=found.id, name=found.name, running=found.state.active)
            for found in self._store.containers_of(image_id)
        ]

    def users_of_volume(self, name: str) -> Ids:
        """The ids of the containers that have a volume among their mounts."""
        return [
            container.id
            for container in self._store.everything()
            if any(point.type == "volume" and point.name == name for point in container.mounts)
        ]

    async def _tests(self, filters: Filters) -> Tests:
        tests: Tests = [lambda container: filters.matches_labels(container.config.labels)]
        for key, make in _SIMPLE_TESTS.items():
            if key in filters:
                tests.append(make(filters.get(key)))
        if "before" in filters:
            oldest = min(self._created(ref) for ref in filters.get("before"))
            tests.append(lambda container: container.created < oldest)
        if "since" in filters:
            newest = max(self._created(ref) for ref in filters.get("since"))
            tests.append(lambda container: container.created > newest)
        if "ancestor" in filters:
            tests.append(await self._ancestor_test(filters.get("ancestor")))
        if "is-task" in filters and filters.flag("is-task"):
            tests.append(lambda _: False)
        return tests

    def _created(self, ref: str) -> int:
        try:
            return self._store.find(ref).container.created
        except NotFound:
            raise NotFound(f"no such container {ref}") from None

    async def _ancestor_test(self, references: Iterable[str]) -> Test:
        ids = set()
        for reference in references:
            try:
                ids.add((await self._catalog.resolve(reference)).id)
            except (NotFound, InvalidArgument):
                continue  # an image that is not here has no containers
        return lambda container: container.image_id in ids


def _exited(values: tuple[str, ...]) -> Test:
    codes = set()
    for value in values:
        try:
            codes.add(int(value))
        except ValueError:
            raise InvalidArgument(f'strconv.Atoi: parsing "{value}": invalid syntax') from None
    return lambda container: container.state.status is Status.EXITED and container.state.exit_code in codes


def _status(values: tuple[str, ...]) -> Test:
    for value in values:
        if value not in _STATUSES:
            raise InvalidArgument(f"invalid filter 'status={value}'")
    return lambda container: container.state.status in values


def _health(values: tuple[str, ...]) -> Test:
    for value in values:
        if value not in _HEALTH:
            raise InvalidArgument(f"Unrecognised filter value for health: {value}")
    return lambda container: (
        (HealthStatus.NONE if container.state.health is None else container.state.health.status) in values
    )


def _name(values: tuple[str, ...]) -> Test:
    patterns = [_pattern(value) for value in values]
    # Docker matches with and without the slash before the name.
    return lambda container: any(
        pattern.search(container.name) or pattern.search("/" + container.name) for pattern in patterns
    )


def _id(values: tuple[str, ...]) -> Test:
    patterns = [_pattern(value) for value in values]
    return lambda container: any(
        container.id.startswith(value) or pattern.search(container.id)
        for value, pattern in zip(values, patterns, strict=True)
    )


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error:
        return re.compile(re.escape(text))


def _volume(values: tuple[str, ...]) -> Test:
    return lambda container: any(
        value in (point.name or point.source, point.destination)
        for point in container.mounts
        for value in values
    )


def _network(values: tuple[str, ...]) -> Test:
    return lambda container: any(
        value == name or endpoint.network_id.startswith(value)
        for name, endpoint in container.network.networks.items()
        for value in values
    )


def _exposed(values: tuple[str, ...]) -> Test:
    # By what the network has, as in Docker: a container that does not run exposes nothing.
    wanted = {port for value in values for port in _expand_ports("expose", value)}
    return lambda container: not wanted.isdisjoint(container.network.ports)


def _published(values: tuple[str, ...]) -> Test:
    """By the host's port."""
    wanted = {port for value in values for port in _expand_ports("publish", value)}
    return lambda container: any(
        f"{binding.host_port}/{port.partition('/')[2] or 'tcp'}" in wanted
        for port, bindings in container.network.ports.items()
        for binding in bindings or ()
    )


def _expand_ports(key: str, text: str) -> list[str]:
    numbers, _, protocol = text.partition("/")
    if ":" in numbers:
        raise InvalidArgument(f"filter for '{key}' should not contain ':': {text}")
    low, _, high = numbers.partition("-")
    what = f"error while looking up for {key} {text}: "
    for part in (low, high or low):
        if not (part.isascii() and part.isdigit()):
            raise InvalidArgument(f'{what}strconv.ParseUint: parsing "{part}": invalid syntax')
        if int(part[:20]) > 65535:
            raise InvalidArgument(f'{what}strconv.ParseUint: parsing "{part}": value out of range')
    first, last = int(low), int(high or low)
    if last < first:
        raise InvalidArgument(f"{what}invalid range specified for port: {numbers}")
    return [f"{port}/{protocol or 'tcp'}" for port in range(first, last + 1)]


_SIMPLE_TESTS: dict[str, Callable[[tuple[str, ...]], Test]] = {
    "exited": _exited,
    "status": _status,
    "health": _health,
    "name": _name,
    "id": _id,
    "volume": _volume,
    "network": _network,
    "expose": _exposed,
    "publish": _published,
}


def created_before(filters: Filters, now: int) -> int | None:
    """The moment (ns) that the filter ``until`` names, None without it; see ``moment``."""
    values = filters.get("until")
    if not values:
        return None
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    return moment(values[0], now)


def moment(text: str, now: int) -> int:
    """A moment in ns: a Unix time, RFC 3339 (local without a zone), or a Go duration before ``now``."""
    matched = _DURATION.fullmatch(text) if text else None
    if matched is not None:
        hours, minutes, seconds = matched.groups()
        return now - int((int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0)) * 1e9)
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f'failed to parse value as time or duration: "{text}"') from None
    return int((found if found.tzinfo else found.astimezone()).timestamp() * 1e9)
