"""What may differ between two engines that answer alike: ids, times, addresses, sizes, names of the runtime.

A table of (pattern, what is written instead), applied in order.
"""

from __future__ import annotations

import re

_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"

_TABLE: tuple[tuple[str, str], ...] = (
    (r"0001-01-01T00:00:00Z", "NEVER"),
    (r"0001-01-01 00:00:00 \+0000 UTC", "NEVER"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} [A-Z]{3,4}", "TIME"),
    (rf"[A-Z][a-z]{{2}} ({_MONTHS}) [ \d]\d \d\d:\d\d:\d\d \d{{4}}", "TIME"),
    (r"(Less than a second|About an? \w+|\d+ (second|minute|hour|day|week|month|year)s?)(?= ago|\b)", "AGE"),
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b(?=[a-f]*[0-9])[0-9a-f]{12}\b", "ID"),
    (r"\b1[789]\d{8}(\d{9})?(\.\d+)?\b", "EPOCH"),
    (r"\b(02|[0-9a-f]{2}):[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}\b", "MAC"),
    (r"\b(10|172|192)\.\d+\.\d+\.\d+(/\d+)?\b", "ADDRESS"),
    (r"\b\d+(\.\d+)?[kMG]B\b", "SIZE"),
    (r'("?Pid"?: ?)[1-9]\d*', r"\1PID"),
    # The layers of software between dockerd and the program, as far as their names go.
    (
        r"(failed to create task for container: )?(failed to create shim task: )?OCI runtime create failed: "
        r"(runc create failed: )?(unable to start container process: )?(error during container init: )?",
        "START FAILED: ",
    ),
    (r"OCI runtime exec failed: (exec failed: )?(unable to start container process: )?", "EXEC FAILED: "),
    (r"(START|EXEC)( FAILED: .*): unknown\b", r"\1\2"),
    (r"repository name \([^)]*\) must be lowercase", "repository name must be lowercase"),
    (r'cannot remove container \\?"[^"\\]*\\?"', "cannot remove container NAME"),
    (r"\b(docker|sampan-[0-9a-f]+)/ID\b", "PARENT/ID"),
    (r'("?IPPrefixLen"?: ?)[1-9]\d*', r"\1LENGTH"),
    (r"docker-import-\w+", "docker-import"),
    (r"[^\"\s]*/netns/", "NETNS/"),
    # The kernel shows the owner of a tmpfs unless it is root, as it is not in a user namespace.
    (r",uid=\d{8,},gid=\d{8,}(?= 0 0)", ""),
    # What the host has.
    (r"0\.01 to \d+\.00, as there are only \d+ CPUs", "0.01 to N, as there are only N CPUs"),
    (r"available: [\d,-]+", "available: LIST"),
    (r"write /sys/fs/cgroup/\S+:", "write FILE:"),
    (r'"OomKillDisable":(false|null)', '"OomKillDisable":DEFAULT'),
    (r'"MaskedPaths":\[[^]]*\]', '"MaskedPaths":[PATHS]'),
    (r"[ \t]{2,}", "  "),
    (r"[ \t]+(?=\n|$)", ""),
)

_MASKS = tuple((re.compile(pattern), instead) for pattern, instead in _TABLE)


def mask(text: str, *, directory: str, root: str) -> str:
    """The text without what may differ. ``directory`` is the caller's own, ``root`` the engine's."""
    text = text.replace(directory, "TMP").replace(root, "ROOT")
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    return text
