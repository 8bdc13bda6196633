"""Doors of a group of users who see and have only what is theirs, and get no rights on the host by it.

Theory: who may create containers at will is root on the host (a bind of ``/`` is enough). Behind such a door
what is made carries the label `OWNER` with the group's name, only what carries it can be seen or touched, and
a container is created from a list of settings that give nothing away: everything that is not on the list has
to be absent or empty. Images are there for all and can only be looked at and used: who could pull or build
would move the names that others run.

Laws: what is not allowed by name is refused. What belongs to others is answered like what is not there. A
name is looked up once, and what goes on to the handler is the id that it was found to mean. A label `OWNER`
of the client's own making is replaced. Containers know their networks by name: one that somebody else has
given that name meanwhile is not joined, and a network is not removed while a container would look for it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from sampan.api.decode import decode_once
from sampan.api.doors import route
from sampan.api.responses import Answer
from sampan.engine.model import Filters, ListQuery
from sampan.engine.model.container import OWNER
from sampan.errors import Conflict, Failure, Forbidden, InvalidArgument, NotFound

if TYPE_CHECKING:
    from sampan.api.request import Request
    from sampan.engine.facade import Engine
    from sampan.engine.model import Container

_LOWEST_PORT = 1024
_SHORT_ID = 12  # digits, as clients show ids
_DIGITS = frozenset("0123456789abcdef")

# Settings of a container that give nothing away, by their names in the API, in lower case.
_FREE = frozenset(
    (
        *("hostname", "domainname", "user", "attachstdin", "attachstdout", "attachstderr", "exposedports"),
        *("tty", "openstdin", "stdinonce", "env", "cmd", "healthcheck", "image", "volumes", "workingdir"),
        *("entrypoint", "onbuild", "stopsignal", "stoptimeout", "shell", "labels", "timeout"),
    )
)
_FREE_OF_HOST = frozenset(
    (
        *("cpushares", "cpuperiod", "cpuquota", "nanocpus", "cpusetcpus", "cpusetmems", "memory"),
        *("memoryreservation", "memoryswap", "memoryswappiness", "pidslimit", "autoremove", "restartpolicy"),
        *("publishallports", "dns", "dnsoptions", "dnssearch", "extrahosts", "groupadd", "capdrop"),
        *("readonlyrootfs", "init", "tmpfs", "shmsize", "consolesize", "annotations", "containeridfile"),
        *("networkmode", "binds", "mounts", "portbindings", "ipcmode"),
        *("pidmode", "usernsmode", "cgroupnsmode", "logconfig", "securityopt", "volumesfrom", "oomscoreadj"),
        "egress",
    )
)
_NAMESPACES = {
    # Values besides ``container:ID`` of a container of one's own.
    "ipcmode": frozenset(("", "private", "shareable", "none")),
    "pidmode": frozenset(("",)),
    "usernsmode": frozenset(("", "private")),
    "cgroupnsmode": frozenset(("", "private")),
}
_FREE_OF_ENDPOINT = frozenset(("aliases", "ipamconfig", "gwpriority"))
_FREE_OF_NETWORK = frozenset(("name", "labels", "internal", "checkduplicate", "attachable"))
# Empty, these take all that is masked away: only their absence gives nothing.
_ABSENT = frozenset(("maskedpaths", "readonlypaths"))
_JOINED = frozenset(("ipcmode", "pidmode", "networkmode"))
_NETWORKS = frozenset(("", "default", "bridge", "none"))
# They have the mount be of something that is there already.
_NO_TMPFS = frozenset(("bind", "rbind", "remount"))
_LOGS = frozenset(("", "json-file", "local", "none"))

# Beside what is looked at more closely, and every path of a container of one's own.
_PLAIN = frozenset(
    (
        *(("GET", "/_ping"), ("HEAD", "/_ping"), ("GET", "/version"), ("GET", "/info")),
        *(("GET", "/images/json"), ("GET", "/images/{name}/json"), ("GET", "/images/{name}/history")),
        *(("GET", "/volumes/{name}"), ("DELETE", "/volumes/{name}"), ("GET", "/networks/{name}")),
    )
)


class Confined:
    """A guard for the group ``owner``."""

    def __init__(self, owner: str, engine: Engine) -> None:
        self._owner = owner
        self._engine = engine
        self._special: Mapping[tuple[str, str], Callable[[Request], Awaitable[None] | None]] = {
            ("GET", "/containers/json"): self._listing,
            ("POST", "/containers/prune"): self._listing,
            ("GET", "/events"): self._listing,
            ("GET", "/volumes"): self._listing,
            ("POST", "/volumes/prune"): self._listing,
            ("GET", "/networks"): self._listing,
            ("POST", "/networks/prune"): self._prune_networks,
            ("DELETE", "/networks/{name}"): self._remove_network,
            ("POST", "/containers/create"): self._create,
            ("POST", "/containers/{name}/rename"): self._rename,
            ("POST", "/containers/{name}/start"): self._start,
            ("POST", "/containers/{name}/restart"): self._start,
            ("POST", "/containers/{name}/update"): self._update,
            ("POST", "/containers/{name}/exec"): self._exec,
            ("POST", "/volumes/create"): self._create_volume,
            ("POST", "/networks/create"): self._create_network,
            ("POST", "/networks/{name}/connect"): self._connect,
            ("POST", "/networks/{name}/disconnect"): self._connect,
        }

    async def before(self, request: Request) -> None:
        pattern = route(request)
        special = self._special.get((request.method, pattern))
        own = pattern.startswith(("/containers/{name}", "/exec/{name}"))
        if special is None and not own and (request.method, pattern) not in _PLAIN:
            raise _refused(f"{request.method} {request.path}")
        try:
            if request.name:
                self._claim(request, pattern)
            if special is not None:
                done = special(request)
                if done is not None:
                    await done
        except (TypeError, AttributeError, UnicodeError, RecursionError):
            # Every value here is the client's: a number where a list belongs, half a surrogate in a name.
            raise InvalidArgument("invalid JSON: a value is not of the type that belongs there") from None

    async def after(self, _request: Request, answer: Answer) -> Answer:
        return answer

    # Whose it is

    def _claim(self, request: Request, pattern: str) -> None:
        """Have the handler find what the name means now. NotFound for what is not the owner's."""
        if pattern.startswith("/containers/"):
            request.name = self._container(request.name).id
        elif pattern.startswith("/exec/"):
            self._container(self._engine.execs.inspect(request.name).container_id)
        elif pattern.startswith("/volumes/"):
            self._volume(request.name)
        elif pattern.startswith("/networks/"):
            request.name = self._network(request.name)

    def _container(self, ref: str) -> Container:
        found = self._engine.containers.get(ref)
        if (found.config.labels or {}).get(OWNER) != self._owner:
            raise NotFound(f"No such container: {ref}")
        return found

    def _volume(self, name: str) -> None:
        if (self._engine.volumes.get(name).labels or {}).get(OWNER) != self._owner:
            raise NotFound(f"get {name}: no such volume")

    def _free(self, name: str) -> None:
        """Conflict for a volume that is others': Docker answers a second creation with what is there."""
        try:
            found = self._engine.volumes.get(name)
        except NotFound:
            return
        if (found.labels or {}).get(OWNER) != self._owner:
            raise Conflict(f"create {name}: the name is taken")

    def _network(self, ref: str) -> str:
        found = self._engine.networks.get(ref)
        if (found.labels or {}).get(OWNER) != self._owner:
            raise NotFound(f"network {ref} not found")
        return found.id

    def _listing(self, request: Request) -> None:
        """Show what is the owner's, whatever else is asked for."""
        query = request.query
        try:
            filters = json.loads(query.text("filters") or "{}")
            labels = filters.get("label") or []
            wanted = [*(labels if isinstance(labels, list) else [name for name, on in labels.items() if on])]
        except (ValueError, AttributeError) as error:
            raise InvalidArgument("invalid filter") from error
        wanted = [label for label in wanted if str(label).partition("=")[0] != OWNER]
        filters["label"] = [*wanted, f"{OWNER}={self._owner}"]
        request.requery(urlencode({**query.first(), "filters": json.dumps(filters)}))

    # What is made

    async def _create(self, request: Request) -> None:
        _check_name(request.query.text("name"), self._engine.containers.get)
        body = await document(request)
        host = _member(body, "hostconfig")
        endpoints = _member(_member(body, "networkingconfig"), "endpointsconfig")
        for key, value in body.items():
            if key.lower() not in (*_FREE, "hostconfig", "networkingconfig") and _says(value):
                raise _refused(key)
        for key, value in host.items():
            given = value is not None if key.lower() in _ABSENT else _says(value)
            if key.lower() not in _FREE_OF_HOST and given:
                raise _refused(f"HostConfig.{key}")
            self._check(key.lower(), value)
        for key in host:
            if key.lower() in _JOINED:
                host[key] = self._joined(host[key])
        for key, endpoint in endpoints.items():
            if key not in _NETWORKS:
                self._network(key)
            _check_endpoint(endpoint)
        self._label(body)
        request.replay(json.dumps(body).encode())

    def _rename(self, request: Request) -> None:
        _check_name(request.query.text("name"), self._engine.containers.get)

    def _start(self, request: Request) -> None:
        """NotFound for a network that is somebody else's by now, unless they had the container join it."""
        for name, endpoint in self._container(request.name).network.networks.items():
            known = name in _NETWORKS or self._engine.networks.get(name).id == endpoint.network_id
            if not known:
                self._network(name)

    async def _remove_network(self, request: Request) -> None:
        await self._unused(self._engine.networks.get(request.name).name)

    async def _prune_networks(self, request: Request) -> None:
        await self._unused()
        self._listing(request)

    async def _unused(self, network: str = "") -> None:
        """Conflict if a stopped container of the owner's would look for the network, or any of the owner's,
        by its name: others may have that name then. Of running ones the engine takes care."""
        filters = Filters({"label": (f"{OWNER}={self._owner}",)})
        for container in await self._engine.containers.list(ListQuery(all=True, filters=filters)):
            if container.state.running:
                continue
            for name in container.network.networks:
                if name == network or (not network and name not in _NETWORKS):
                    raise Conflict(
                        f"network {name} is that of container {container.name}: remove the container first"
                    )

    async def _update(self, request: Request) -> None:
        for key, value in (await document(request)).items():
            if key.lower() not in _FREE_OF_HOST and _says(value):
                raise _refused(key)

    async def _exec(self, request: Request) -> None:
        for key, value in (await document(request)).items():
            if key.lower() == "privileged" and _says(value):
                raise _refused(key)

    async def _create_volume(self, request: Request) -> None:
        body = await document(request)
        for key, value in body.items():
            plain = key.lower() in ("name", "labels") or (key.lower() == "driver" and value == "local")
            if not plain and _says(value):
                raise _refused(key)
        self._free(str(field(body, "name") or ""))
        self._label(body)
        request.replay(json.dumps(body).encode())

    async def _create_network(self, request: Request) -> None:
        body = await document(request)
        _check_name(str(field(body, "name") or ""), self._engine.networks.get)
        plain = {"driver": ("bridge", "default"), "scope": ("local",), "enableipv4": (True,)}
        for key, value in body.items():
            asked = _member(body, "ipam") if key.lower() == "ipam" else {key: value}
            for inner, given in asked.items():
                free = inner.lower() in _FREE_OF_NETWORK or given in plain.get(inner.lower(), ())
                if _says(given) and not free:
                    raise _refused(inner)
        self._label(body)
        request.replay(json.dumps(body).encode())

    async def _connect(self, request: Request) -> None:
        body = await document(request)
        _check_endpoint(field(body, "endpointconfig"))
        for key in body:
            if key.lower() == "container":
                body[key] = self._container(str(body[key])).id
        request.replay(json.dumps(body).encode())

    def _label(self, body: dict[str, Any]) -> None:
        labels = dict(_member(body, "labels"))
        for key in [key for key in body if key.lower() == "labels"]:
            del body[key]
        body["Labels"] = {**labels, OWNER: self._owner}

    def _check(self, key: str, value: Any) -> None:
        """Forbidden for a value of a setting of the host's that gives something away."""
        if not _says(value):
            return
        if key in _NAMESPACES and not str(value).startswith("container:"):
            if str(value) not in _NAMESPACES[key]:
                raise _refused(f"HostConfig.{key}={value}")
        elif key == "networkmode":
            self._reachable(str(value))
        elif (check := self._checks().get(key)) is not None:
            check(value)

    def _checks(self) -> Mapping[str, Callable[[Any], None]]:
        return {
            "binds": self._check_binds,
            "mounts": self._check_mounts,
            "portbindings": _check_ports,
            "tmpfs": _check_tmpfs,
            "logconfig": _check_log,
            "securityopt": _check_security,
            "volumesfrom": self._check_volumes_from,
            "oomscoreadj": _check_score,
        }

    def _joined(self, value: Any) -> Any:
        """``container:REF`` with the id of the owner's container."""
        scheme, colon, ref = str(value).partition(":")
        if scheme != "container" or not colon:
            return value
        return f"container:{self._container(ref).id}"

    def _reachable(self, name: str) -> None:
        if name not in _NETWORKS and not name.startswith("container:"):
            self._network(name)

    def _check_binds(self, value: Any) -> None:
        for bind in value:
            source = str(bind).partition(":")[0]
            if "/" in source or source in ("", ".", ".."):
                raise _refused(f"a bind of the host's {source}")
            self._volume(source)

    def _check_mounts(self, value: Any) -> None:
        for mount in value:
            kind, source = str(field(mount, "type")), str(field(mount, "source") or "")
            if kind == "tmpfs":
                for option in field(field(mount, "tmpfsoptions"), "options") or ():
                    _check_tmpfs({"": ",".join(option)})
                continue
            if kind != "volume":
                raise _refused(f"a mount of type {kind}")
            if _says(field(field(mount, "volumeoptions"), "driverconfig")):
                raise _refused("a volume driver")
            if source:
                self._volume(source)

    def _check_volumes_from(self, value: Any) -> None:
        for ref in value:
            self._container(str(ref).partition(":")[0])


def _check_name(name: str, find: Callable[[str], object]) -> None:
    """Refuse what others may write for the id of something: a name is found before the beginning of an id."""
    digits = name.removeprefix("/")
    if not digits or set(digits) - _DIGITS:
        return
    if len(digits) >= _SHORT_ID:
        raise _refused(f"the name {name}, which looks like an id,")
    try:
        find(digits)
    except NotFound:
        return
    except Failure:  # there are several whose ids begin like that
        pass
    raise Conflict(f"the name {name} is taken")


def _check_ports(value: Any) -> None:
    for bindings in value.values():
        for binding in bindings or ():
            port = str(field(binding, "hostport") or "0")
            low = port.partition("-")[0]
            # "0" is any port; in a range it is the lowest.
            if port != "0" and low.isdecimal() and int(low[:8]) < _LOWEST_PORT:
                raise _refused(f"port {port} of the host")


def _check_tmpfs(value: Any) -> None:
    for options in value.values():
        if refused := _NO_TMPFS.intersection(str(options).split(",")):
            raise _refused(f"a tmpfs with {', '.join(sorted(refused))}")


def _check_endpoint(value: Any) -> None:
    for key, given in (value or {}).items():
        if key.lower() not in _FREE_OF_ENDPOINT and _says(given):
            raise _refused(f"EndpointSettings.{key}")


def _check_log(value: Any) -> None:
    if field(value, "type") not in (*_LOGS, None):
        raise _refused(f"log driver {field(value, 'type')}")


def _check_security(value: Any) -> None:
    for option in value:
        if str(option).partition("=")[0].partition(":")[0] != "no-new-privileges":
            raise _refused(f"security option {option}")


def _check_score(value: Any) -> None:
    if not isinstance(value, int) or value < 0:
        raise _refused(f"OOM score {value}")


def _refused(what: str) -> Forbidden:
    return Forbidden(f"{what} is not allowed on this socket: use another one")


def _says(value: Any) -> bool:
    """Whether a value is more than absent, empty or off."""
    if isinstance(value, dict):
        return any(_says(item) for item in value.values())
    return value not in (None, "", 0, False, -1) and value != []


def field(document: Any, name: str) -> Any:
    """The member of that name, whatever its case (Go's decoder takes any)."""
    if not isinstance(document, dict):
        return None
    return next((value for key, value in document.items() if key.lower() == name), None)


def _member(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The only object of that name. InvalidArgument if there are several, of which one might be looked at
    here and another obeyed."""
    found = [value for key, value in document.items() if key.lower() == name and value is not None]
    if len(found) > 1 or (found and not isinstance(found[0], dict)):
        raise InvalidArgument(f"invalid JSON: {name} has to be one object")
    return found[0] if found else {}


async def document(request: Request) -> dict[str, Any]:
    request.check_json()
    raw = await request.read()
    found = decode_once(raw or b"{}")
    if not isinstance(found, dict):
        raise InvalidArgument("invalid JSON: an object is wanted")
    request.replay(raw)
    return found
