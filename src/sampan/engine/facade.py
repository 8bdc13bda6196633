"""The engine as one frozen value: what the api is given, built by ``daemon.main``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.engine.archives import Archives
    from sampan.engine.builds import Builds
    from sampan.engine.buildusage import BuildUsage
    from sampan.engine.cachemountcopies import CacheMountCopies
    from sampan.engine.commits import Commits
    from sampan.engine.connections import Connections
    from sampan.engine.containers import Containers
    from sampan.engine.events import Events
    from sampan.engine.execs import Execs
    from sampan.engine.images import Images
    from sampan.engine.networks import Networks
    from sampan.engine.offers import Offers
    from sampan.engine.processes import Processes
    from sampan.engine.pulls import Pulls
    from sampan.engine.pushes import Pushes
    from sampan.engine.reach import Reach
    from sampan.engine.referrers import Referrers
    from sampan.engine.registries import Registries
    from sampan.engine.stats import Statistics
    from sampan.engine.system import System
    from sampan.engine.volumecopies import VolumeCopies
    from sampan.engine.volumes import Volumes
    from sampan.images.checking import Checker


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The use cases, one object per resource."""

    containers: Containers
    execs: Execs
    images: Images
    networks: Networks
    connections: Connections
    volumes: Volumes
    volume_copies: VolumeCopies
    events: Events
    system: System
    statistics: Statistics
    processes: Processes
    archives: Archives
    commits: Commits
    pulls: Pulls
    pushes: Pushes
    registries: Registries
    storage: Checker
    offers: Offers
    reach: Reach
    builds: Builds
    referrers: Referrers
    build_usage: BuildUsage
    cache_mounts: CacheMountCopies
