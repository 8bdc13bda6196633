"""The table, one module for each part of Docker."""

from tests.e2e.parity.scenes import lifecycle, listing, requests, running, storing, streams

SCENES = (
    *running.SCENES,
    *lifecycle.SCENES,
    *streams.SCENES,
    *listing.SCENES,
    *storing.SCENES,
    *requests.SCENES,
)
