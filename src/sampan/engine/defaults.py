"""From what the user gave and what the image says to the configuration that is stored and run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine.host import HostFacts
from sampan.engine.model import (
    ContainerConfig,
    EndpointSettings,
    HealthConfig,
    HostConfig,
    LogConfig,
    NetworkingConfig,
    NetworkSettings,
)
from sampan.engine.model.container import OWNER
from sampan.engine.options import EngineOptions
from sampan.errors import InvalidArgument
from sampan.spec.runtime import READONLY_PATHS, masked_paths

if TYPE_CHECKING:
    from sampan.spec.image import RunConfig


def merge_image(config: ContainerConfig, image: RunConfig) -> ContainerConfig:
    """The user's configuration with the image's for what the user left open, by Docker's rules.

    The image's CMD is taken only when the user gave neither entrypoint nor command; an entrypoint of one
    empty string takes the image's away. InvalidArgument when nothing is left to run.
    """
    entrypoint, cmd = config.entrypoint, config.cmd
    if not entrypoint:
        if not cmd:
            cmd = image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == ("",):
        entrypoint = None
    if not entrypoint and not cmd:
        raise InvalidArgument("no command specified")
    # Whose a container is, its creator says; an image, which is anybody's, would give it away.
    inherited = {key: value for key, value in image.labels.items() if key != OWNER}
    labels = {**inherited, **(config.labels or {})}
    ports: dict[str, dict[str, str]] = {port: {} for port in image.exposed_ports}
    volumes: dict[str, dict[str, str]] = {path: {} for path in image.volumes}
    return replace(
        config,
        user=config.user or image.user,
        env=_merge_env(config.env or (), image.env),
        entrypoint=entrypoint,
        cmd=cmd,
        labels=labels,
        exposed_ports={**(config.exposed_ports or {}), **ports} or None,
        volumes={**(config.volumes or {}), **volumes} or None,
        working_dir=config.working_dir or image.working_dir,
        stop_signal=config.stop_signal or image.stop_signal,
        healthcheck=_merge_health(config.healthcheck, image),
        shell=config.shell or image.shell,
    )


def _merge_env(own: tuple[str, ...], image: tuple[str, ...]) -> tuple[str, ...]:
    given = {variable.partition("=")[0] for variable in own}
    return own + tuple(variable for variable in image if variable.partition("=")[0] not in given)


def _merge_health(own: HealthConfig | None, image: RunConfig) -> HealthConfig | None:
    theirs = image.healthcheck
    if not theirs:
        return own
    inherited = HealthConfig(
        test=tuple(theirs.get("Test") or ()) or None,
        interval=theirs.get("Interval") or 0,
        timeout=theirs.get("Timeout") or 0,
        start_period=theirs.get("StartPeriod") or 0,
        start_interval=theirs.get("StartInterval") or 0,
        retries=theirs.get("Retries") or 0,
    )
    if own is None:
        return inherited
    return HealthConfig(
        test=own.test or inherited.test,
        interval=own.interval or inherited.interval,
        timeout=own.timeout or inherited.timeout,
        start_period=own.start_period or inherited.start_period,
        start_interval=own.start_interval or inherited.start_interval,
        retries=own.retries or inherited.retries,
    )


def command(config: ContainerConfig) -> tuple[str, ...]:
    """The argument vector: entrypoint, then command."""
    return (config.entrypoint or ()) + (config.cmd or ())


def fill_host(host: HostConfig, options: EngineOptions, facts: HostFacts) -> HostConfig:
    """Docker's defaults for what was left open, as inspect shows them."""
    driver = host.log_config.type or options.log_driver
    log_defaults = options.log_options if driver == options.log_driver else {}
    swap = host.memory_swap
    if host.memory > 0 and swap == 0:
        swap = host.memory * 2
    oom_kill_disable = host.oom_kill_disable
    if oom_kill_disable is None and facts.cgroup_version == "1":
        oom_kill_disable = False
    masked, read_only = host.masked_paths, host.readonly_paths
    if not host.privileged:
        masked = masked_paths() if masked is None else masked
        read_only = READONLY_PATHS if read_only is None else read_only
    return replace(
        host,
        log_config=LogConfig(type=driver, config={**log_defaults, **(host.log_config.config or {})}),
        network_mode="bridge" if host.network_mode in ("", "default") else host.network_mode,
        memory_swap=swap,
        shm_size=host.shm_size or options.shm_size,
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or "private",
        oom_kill_disable=oom_kill_disable,
        runtime=host.runtime or options.default_runtime,
        masked_paths=masked,
        readonly_paths=read_only,
    )


def network_settings(
    config: ContainerConfig, host: HostConfig, networking: NetworkingConfig
) -> NetworkSettings:
    """The container's endpoints before it ever ran: of its network and of others, as they were asked for."""
    asked = networking.endpoints_config or {}
    given = asked.get(host.network_mode)
    if given is None and host.network_mode == "bridge":
        given = asked.get("default")
    settings = given or EndpointSettings()
    if not settings.mac_address and config.mac_address:
        settings = replace(settings, mac_address=config.mac_address)
    if config.network_disabled or host.network_mode.startswith("container:"):
        return NetworkSettings()
    others = {
        name: further or EndpointSettings()
        for name, further in asked.items()
        if name not in (host.network_mode, "default")
    }
    return NetworkSettings(networks={host.network_mode: settings, **others})
