"""What a container should run: Docker's portable half of a create request.

One typed description serves the create request, inspect and storage; the field names on the wire are
Docker's (``msgspec`` renames). ``None`` is Go's nil and renders as ``null``; fields named in
``OMITTED_WHEN_EMPTY`` are left out of an answer when empty, as Docker's ``omitempty`` does.
Durations are nanoseconds.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class HealthConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """A health check: ``test`` is [] (inherit), ["NONE"], ["CMD", …] or ["CMD-SHELL", line]."""

    test: tuple[str, ...] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Docker's ContainerConfig, API v1.24 to v1.56."""

    OMITTED_WHEN_EMPTY: ClassVar[frozenset[str]] = frozenset(
        {
            "ExposedPorts",
            "Healthcheck",
            "ArgsEscaped",
            "NetworkDisabled",
            "MacAddress",
            "StopSignal",
            "StopTimeout",
            "Shell",
        }
    )

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, str]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, str]] | None = None
    working_dir: str = ""
    entrypoint: tuple[str, ...] | None = None
    network_disabled: bool = False
    mac_address: str = ""  # until API v1.43; later in NetworkingConfig
    on_build: tuple[str, ...] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None  # seconds; -1: never kill
    shell: tuple[str, ...] | None = None
