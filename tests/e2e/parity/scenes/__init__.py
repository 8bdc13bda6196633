"""The table, one module for each part of Docker."""

from tests.e2e.parity.scenes import lifecycle, listing, observing, requests, running, storing, streams

SCENES = (
    *running.SCENES,
    *lifecycle.SCENES,
    *streams.SCENES,
    *listing.SCENES,
    *observing.SCENES,
    *storing.SCENES,
    *requests.SCENES,
)
