"""The container use cases put together from what they stand on. Called by ``daemon.main`` and by tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.engine.containers import Containers
from sampan.engine.creation import Creation
from sampan.engine.egress import Egress
from sampan.engine.endpoints import FindNetwork, Places
from sampan.engine.execs import Execs
from sampan.engine.exits import Exits
from sampan.engine.forecast import Forecast
from sampan.engine.health import HealthChecks
from sampan.engine.idranges import Blocks, IdRanges, OneEngine
from sampan.engine.killing import Killing
from sampan.engine.launches import Launches, Sources
from sampan.engine.links import Links
from sampan.engine.lookups import Lookups
from sampan.engine.publishing import Ports, Publishing
from sampan.engine.recovery import Leftovers, Recovery
from sampan.engine.remaking import Remaking
from sampan.engine.removal import Removal
from sampan.engine.restarts import Restarts
from sampan.engine.running import Running, Starting
from sampan.engine.sandboxes import Sandboxes
from sampan.engine.shipping import Shipping
from sampan.engine.streams import Streams
from sampan.engine.updates import Updates
from sampan.engine.users import Users
from sampan.engine.waits import Waits

if TYPE_CHECKING:
    from sampan.engine.events import Events
    from sampan.engine.ports import Bridges, Runtime
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore
    from sampan.engine.watching import Watching
    from sampan.network import Names
    from sampan.network.egress import EgressRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundations:
    """What the container use cases stand on.

    ``network_id`` gives the id of a network that always exists by its name, ``find_network`` a user-defined
    one by its name or id; ``end_group`` kills everything in a cgroup and removes
    it, and succeeds when there is none; ``is_frozen`` says whether a cgroup stands still. ``id_blocks`` None:
    no other engine takes ids of this host.
    """

    store: ContainerStore
    events: Events
    sources: Sources
    bridges: Bridges
    network_id: Callable[[str], str]
    runtime: Runtime
    end_group: Callable[[str], None]
    is_frozen: Callable[[str], bool]
    watching: Watching
    settings: Settings
    id_blocks: Blocks | None = None
    find_network: FindNetwork = lambda _: None
    names: Names | None = None
    ports: Ports | None = None
    egress: EgressRules | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerUseCases:
    """``recovery.run()`` is awaited once, before the first request; ``close()`` after the last."""

    containers: Containers
    execs: Execs
    restarts: Restarts
    checks: HealthChecks
    killing: Killing
    places: Places
    egress: Egress
    recovery: Recovery
    shipping: Shipping

    async def close(self) -> None:
        """Begin nothing more by itself, and let what is under way come to its end."""
        await self.restarts.close()
        await self.containers.settle()
        await self.checks.close()
        await self.shipping.close()


def wire(given: Foundations) -> ContainerUseCases:
    """Build the objects; nothing is started."""
    store, events, settings, sources = given.store, given.events, given.settings, given.sources
    options = settings.options
    blocks = given.id_blocks or OneEngine(first=options.first_host_id)
    id_ranges = IdRanges(blocks, unit=options.id_range)
    users = Users(settings, id_ranges)
    sandboxes = Sandboxes(store)
    links = Links(store)
    restarts = Restarts(store=store, settings=settings)
    killing = Killing(store=store, events=events, restarts=restarts, settings=settings)
    shipping = Shipping(watching=given.watching, settings=settings)
    egress = Egress(given.egress, store=store, events=events, find_network=given.find_network)
    places = Places(
        bridges=given.bridges,
        network_id=given.network_id,
        find_network=given.find_network,
        names=given.names,
        settings=settings,
        gate=egress.gate,
    )
    publishing = Publishing(given.ports)
    launches = Launches(
        sources=sources,
        bridges=given.bridges,
        places=places,
        egress=egress,
        publishing=publishing,
        users=users,
        sandboxes=sandboxes,
        shipping=shipping,
        links=links,
        settings=settings,
    )
    forecast = Forecast(runtime=given.runtime, users=users, settings=settings)
    removal = Removal(
        store=store,
        snapshots=sources.snapshots,
        volumes=sources.volumes,
        events=events,
        killing=killing,
        shipping=shipping,
        settings=settings,
    )
    execs = Execs(
        store=store, events=events, killing=killing, settings=settings, available=launches.available
    )
    checks = HealthChecks(store=store, events=events, execs=execs, killing=killing, settings=settings)
    exits = Exits(
        store=store,
        events=events,
        launches=launches,
        removal=removal,
        restarts=restarts,
        checks=checks,
        shipping=shipping,
        settings=settings,
    )
    starting = Starting(
        store=store,
        launches=launches,
        runtime=given.runtime,
        forecast=forecast,
        exits=exits,
        restarts=restarts,
        removal=removal,
        events=events,
    )
    containers = Containers(
        creation=Creation(
            store=store,
            catalog=sources.catalog,
            snapshots=sources.snapshots,
            volumes=sources.volumes,
            events=events,
            users=users,
            sandboxes=sandboxes,
            links=links,
            forecast=forecast,
            settings=settings,
        ),
        running=Running(store=store, starting=starting, killing=killing, events=events),
        removal=removal,
        links=links,
        lookups=Lookups(store=store, catalog=sources.catalog),
        waits=Waits(store=store),
        updates=Updates(store=store, events=events, settings=settings),
        streams=Streams(store=store, events=events, watching=given.watching, settings=settings),
    )
    remaking = Remaking(catalog=sources.catalog, snapshots=sources.snapshots, settings=settings)
    leftovers = Leftovers(
        snapshots=sources.snapshots,
        volumes=sources.volumes,
        bridges=given.bridges,
        id_ranges=id_ranges,
        places=places,
        egress=egress,
        publishing=publishing,
        end_group=given.end_group,
        is_frozen=given.is_frozen,
        settings=settings,
    )
    return ContainerUseCases(
        containers=containers,
        execs=execs,
        restarts=restarts,
        checks=checks,
        shipping=shipping,
        killing=killing,
        places=places,
        egress=egress,
        recovery=Recovery(
            store=store,
            runtime=given.runtime,
            exits=exits,
            starting=starting,
            restarts=restarts,
            removal=removal,
            remaking=remaking,
            leftovers=leftovers,
            shipping=shipping,
            settings=settings,
        ),
    )
