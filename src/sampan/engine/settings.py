"""What every use case is told once: where files are, what the daemon's options say, what the host has."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sampan.engine.host import HostFacts
from sampan.engine.options import EngineOptions
from sampan.engine.paths import Paths
from sampan.engine.timers import Later, on_loop


@dataclass(slots=True, kw_only=True)
class Settings:
    """``now`` gives nanoseconds since the epoch; ``later`` sets timers; ``chance`` makes ids and names.

    ``options`` is the one thing that changes: the daemon replaces it when it reads its settings anew, so it
    is asked for when it is needed and kept by nobody.
    """

    paths: Paths
    options: EngineOptions
    facts: HostFacts
    now: Callable[[], int] = time.time_ns
    later: Later = on_loop
    chance: random.Random = field(default_factory=random.SystemRandom)

    def new_id(self) -> str:
        """64 hexadecimal digits. Never all decimal in the first 12, which are used as a hostname."""
        while True:
            found = f"{self.chance.getrandbits(256):064x}"
            if not found[:12].isdecimal():
                return found
