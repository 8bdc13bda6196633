"""Creating a container: one body that holds three documents, read by the rules of the client's version."""

from __future__ import annotations

import msgspec

from sampan.api.request import Request
from sampan.api.responses import Answer, json_response
from sampan.api.routing import Route
from sampan.engine.facade import Engine
from sampan.engine.model import (
    ContainerConfig,
    EndpointSettings,
    HostConfig,
    Mount,
    NetworkingConfig,
)
from sampan.errors import InvalidArgument
from sampan.spec import platform

replace = msgspec.structs.replace


class CreateRequest(ContainerConfig, frozen=True, kw_only=True, rename="pascal"):
    """The body: a ContainerConfig with two more members."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None

    def config(self) -> ContainerConfig:
        """The part of it that is the configuration. InvalidArgument when there is none."""
        fields = {name: getattr(self, name) for name in ContainerConfig.__struct_fields__}
        config = ContainerConfig(**fields)
        if config == ContainerConfig():
            raise InvalidArgument("config cannot be empty in order to create a container")
        return config


async def create(request: Request, engine: Engine) -> Answer:
    """POST /containers/create?name=&platform="""
    body = await request.json(CreateRequest)
    config = body.config()
    host = host_for_version(body.host_config or HostConfig(), request.version)
    if config.healthcheck is not None and request.version < (1, 44):
        config = replace(config, healthcheck=replace(config.healthcheck, start_interval=0))
    endpoints = dict((body.networking_config or NetworkingConfig()).endpoints_config or {})
    if host.network_mode in ("", "default"):
        # "default" is the clients' word for whatever the platform's default network is.
        host = replace(host, network_mode="bridge")
        if "default" in endpoints:
            endpoints["bridge"] = endpoints.pop("default")
    config, endpoints, warnings = _move_mac_address(config, host, endpoints, request.version)
    if request.version < (1, 44) and len(endpoints) > 1:
        names = ", ".join(endpoints)
        raise InvalidArgument(f"Container cannot be created with multiple network endpoints: {names}")
    wanted = request.query.text("platform")
    name = request.query.text("name") or None
    created = await engine.containers.create(
        name,
        config,
        host,
        NetworkingConfig(endpoints_config=endpoints or None),
        platform=platform.parse(wanted) if wanted else None,
    )
    return json_response({"Id": created.id, "Warnings": [*created.warnings, *warnings]}, status=201)


def host_for_version(host: HostConfig, version: tuple[int, int]) -> HostConfig:
    """What a client of that API version means by its HostConfig."""
    changes: dict[str, object] = {}
    if version < (1, 25):
        changes["auto_remove"] = False  # the client removes it
    if version < (1, 40):
        changes["kernel_memory_tcp"] = 0
        if not host.ipc_mode:
            changes["ipc_mode"] = "shareable"
    if version < (1, 42):
        changes["console_size"] = (0, 0)
    else:
        changes["kernel_memory"] = 0
    if version < (1, 43):
        changes["annotations"] = None
    if host.pids_limit is not None and host.pids_limit <= 0:
        changes["pids_limit"] = None  # 0 and every negative number mean no limit
    if host.mounts:
        changes["mounts"] = tuple(_mount_for_version(mount, version) for mount in host.mounts)
    return replace(host, **changes)


def _mount_for_version(mount: Mount, version: tuple[int, int]) -> Mount:
    options = {
        "bind": ("BindOptions", mount.bind_options),
        "volume": ("VolumeOptions", mount.volume_options),
        "tmpfs": ("TmpfsOptions", mount.tmpfs_options),
    }
    foreign = {kind: name for kind, (name, given) in options.items() if given and kind != mount.type}
    if version >= (1, 42):
        for name in foreign.values():
            raise InvalidArgument(f'{name} must not be specified on mount type "{mount.type}"')
    changes: dict[str, object] = {}
    if version < (1, 42):
        changes = {f"{kind}_options": None for kind in foreign if kind != "bind"}
    bind = mount.bind_options
    if bind is not None and version < (1, 44):
        if bind.read_only_force_recursive:
            raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
        changes["bind_options"] = replace(
            bind,
            non_recursive=bind.non_recursive and version >= (1, 40),
            create_mountpoint=bind.create_mountpoint and version >= (1, 42),
            read_only_non_recursive=True,
        )
    if version < (1, 45) and mount.volume_options is not None and mount.volume_options.subpath:
        raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")
    return replace(mount, **changes) if changes else mount


def _move_mac_address(
    config: ContainerConfig,
    host: HostConfig,
    endpoints: dict[str, EndpointSettings | None],
    version: tuple[int, int],
) -> tuple[ContainerConfig, dict[str, EndpointSettings | None], list[str]]:
    """Until 1.43 the address was the container's; since then it is an endpoint's."""
    mac = config.mac_address
    if not mac:
        return config, endpoints, []
    mode = host.network_mode
    if mode in ("none", "host") or mode.startswith("container:"):
        if version < (1, 44):
            raise InvalidArgument("conflicting options: mac-address and the network mode")
    else:
        name = next(iter(endpoints), mode) if version < (1, 44) else mode
        endpoint = endpoints.get(name) or EndpointSettings()
        if endpoint.mac_address not in ("", mac) and version >= (1, 44):
            raise InvalidArgument(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main "
                "network, or be left empty"
            )
        endpoints = {**endpoints, name: replace(endpoint, mac_address=mac)}
    warnings = []
    if version >= (1, 44):
        warnings.append(
            "The container-wide MacAddress field is now deprecated. "
            "It should be specified in EndpointsConfig instead."
        )
    return replace(config, mac_address=""), endpoints, warnings


ROUTES = (Route("POST", "/containers/create", create),)
