"""What the daemon's options settle for every container; built by ``daemon.main``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sampan.registry.settings import RegistrySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Defaults of this engine.

    ``userns`` is the mode of containers that do not choose one, ``userns_fallback`` whether one may have the
    host's ids where it is private; id ranges are taken from
    ``first_host_id`` on, ``id_range`` ids each. ``cgroup_parent`` is absolute. ``log_options`` are the
    json-file driver's. ``seccomp_profile`` is the text of a profile, "unconfined", or None for the built-in
    one. ``build_cache_limit`` is what the build cache may take,
    0 for no limit and None for a tenth of the disk; ``max_downloads`` and ``max_uploads`` are how many layers
    of a pull or push go at once. With less free than ``low_disk_warning`` the engine warns, with less than
    ``low_disk_reserve`` it takes no more (None: ``engine.room`` decides). Times are seconds, sizes bytes.
    """

    userns: Literal["private", "host"] = "private"
    userns_fallback: Literal["allow", "deny"] = "allow"
    first_host_id: int = 1 << 25
    id_range: int = 65536
    cgroup_parent: str = "/sampan"
    stop_timeout: int = 10
    init: bool = False
    shm_size: int = 64 << 20
    ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # name → (soft, hard)
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=dict)
    no_new_privileges: bool = False
    seccomp_profile: str | None = None
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    runtimes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name → (program, arguments…)
    default_runtime: str = "sampan"
    registries: RegistrySettings = field(default_factory=RegistrySettings)
    build_cache_limit: int | None = None
    max_downloads: int = 3
    max_uploads: int = 5
    low_disk_warning: int | None = None
    low_disk_reserve: int | None = None
    debug: bool = False
