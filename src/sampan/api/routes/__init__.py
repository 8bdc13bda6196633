"""All routes of the API, one module per resource."""

from __future__ import annotations

from sampan.api.routes import system
from sampan.api.routing import Route

ROUTES: tuple[Route, ...] = (*system.ROUTES,)
