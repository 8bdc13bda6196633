"""The features document: what a ``config.json`` may ask of this runtime on this host."""

from __future__ import annotations

from typing import Any

from sampan import __version__
from sampan.sandbox import cgroups, mountopts
from sampan.sandbox.seccomp import ABIS
from sampan.spec.runtime import ALL_CAPABILITIES
from sampan.spec.seccomp import ACTIONS, FLAGS, OPERATORS


def document(version: str) -> dict[str, Any]:
    """As the specification's features.md has it."""
    host = cgroups.detect()
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": version,
        "hooks": [
            *("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
        ],
        "mountOptions": sorted(mountopts.WORDS),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": list(ALL_CAPABILITIES),
            "cgroup": {
                "v1": host.version == 1,
                "v2": host.version == 2,
                "systemd": False,
                "systemdUser": False,
                "rdma": False,
            },
            "seccomp": {
                "enabled": True,
                "actions": list(ACTIONS),
                "operators": list(OPERATORS),
                "archs": sorted(ABIS),
                "knownFlags": list(FLAGS),
                "supportedFlags": list(FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": False}},
        },
        "annotations": {"org.sampan.version": __version__},
    }
