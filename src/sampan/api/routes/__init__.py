"""All routes of the API, one module per resource."""

from __future__ import annotations

from sampan.api.routes import (
    absent,
    archives,
    build,
    commits,
    containers,
    create,
    execs,
    images,
    networks,
    observing,
    offering,
    registries,
    storage,
    streams,
    system,
    updates,
    volumes,
)
from sampan.api.routing import Route

ROUTES: tuple[Route, ...] = (
    *system.ROUTES,
    *containers.ROUTES,
    *updates.ROUTES,
    *archives.ROUTES,
    *commits.ROUTES,
    *create.ROUTES,
    *streams.ROUTES,
    *observing.ROUTES,
    *execs.ROUTES,
    *images.ROUTES,
    *registries.ROUTES,
    *storage.ROUTES,
    *offering.ROUTES,
    *build.ROUTES,
    *networks.ROUTES,
    *volumes.ROUTES,
    *absent.ROUTES,
)
