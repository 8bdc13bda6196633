"""The page of the daemon's settings, made of its own tables."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from sampan.daemon.directives import REFUSED, TABLE, WITHOUT_EFFECT

_HEAD = """\
# The daemon and its settings

`sampan` starts the daemon when a command finds none. As a service of systemd:

```
sampan system service install [--group NAME] [-- DAEMON_OPTION...]   # now and at every boot
sampan system service uninstall                                      # images, containers and volumes stay
systemctl reload sampan                                              # reads the settings anew (SIGHUP)
```

systemd owns the socket (`/run/sampan/sampan.sock`, mode 0660, of root and `NAME`; members of that group rule
the machine, as with Docker). Containers run on when the service is stopped, restarted or upgraded: what holds
them is in a cgroup of its own, `/sampan/engine`, and the unit has `KillMode=process`. An engine that a client
had started gives way to the service. For the `docker` command:
`docker context create sampan --docker host=unix:///run/sampan/sampan.sock`.

Settings are flags of `sampan daemon` or keys of `/etc/sampan/daemon.json` (`--config-file` names another
file, `--validate` checks it), dockerd's where they mean the same. One that is given in both places is an
error.

| key | flag | meaning | on SIGHUP |
|---|---|---|---|
"""

_DROPPING = """\
With `drop-compressed-blobs` the archive of a layer goes once its files are on the disk and have been
proved to make the plain archive again, byte for byte; a *recipe*, the archive without what the files
hold, stays beside them. That frees half of what an image takes that was built or imported here, less of
one that came compressed. It costs: what was compressed comes back plain, so `save` writes plain layers,
a push compresses and uploads again, and manifests have other digests than the registry's own (an index
is not pushed or saved as one then); sending takes the time to read the files and, for a while, the room
of the plain archive; and a damaged layer cannot be unpacked again from what is here: `sampan system
check --repair` says what to pull or load. Archives that cannot be proved stay: those with a name twice,
or with sparse files that are most of them. Without the setting what was dropped can be sent all the
same, and a pull brings the originals back.
"""

_ROOM = """\
While less than `low-disk-reserve` of the data root's file system is free, or less than 1,000 inodes (a
fiftieth of them on a smaller one), what takes room is refused: creating containers, pulls, builds, loads,
commits, copies of volumes. Running containers go on; stop, rm and prune work, also when nothing at
all is free: the state has 6 MB of the disk set aside, and another 6 MB (`state.db-spare`) for a start of the
daemon. Below `low-disk-warning`, `sampan info` and the log warn.
"""


def page() -> str:
    """The whole text."""
    rows = "".join(
        f"| `{found.key}` | {', '.join(f'`{flag}`' for flag in found.flags) or '(none)'} | {found.words} "
        f"| {'taken up' if found.live else 'with the next start'} |\n"
        for found in TABLE
    )
    return (
        f"{_HEAD}{rows}\n{_DROPPING}\n{_ROOM}\n"
        "Keys of dockerd's that have no effect here, of which the daemon warns with the reason:\n"
        f"{_listed(WITHOUT_EFFECT)}\n\n"
        "Keys that would leave the host less protected than was asked are refused:\n"
        f"{_listed(REFUSED)}\n"
    )


def _listed(keys: Iterable[str]) -> str:
    text = ", ".join(f"`{key}`" for key in sorted(keys)) + "."
    return "\n".join(textwrap.wrap(text, 110, break_on_hyphens=False, break_long_words=False))
