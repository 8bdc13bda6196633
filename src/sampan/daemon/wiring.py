"""Every object of the engine, built once and handed its collaborators; nothing is looked up elsewhere."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace

from sampan.api.current import REQUEST
from sampan.api.growing import guarded
from sampan.api.routes import ROUTES
from sampan.api.server import Server
from sampan.daemon import networking
from sampan.daemon.options import Options
from sampan.engine.archives import Archives
from sampan.engine.buildcache import BuildCache
from sampan.engine.buildexplain import Explanations
from sampan.engine.buildmounts import BuildMounts
from sampan.engine.builds import Builds
from sampan.engine.buildsecrets import Secrets
from sampan.engine.buildsteps import BuildSteps
from sampan.engine.buildusage import BuildUsage, default_limit
from sampan.engine.cachemountcopies import CacheMountCopies
from sampan.engine.cachemounts import CacheMounts
from sampan.engine.cachetransfer import CacheTransfer
from sampan.engine.commits import Commits
from sampan.engine.connections import Connections
from sampan.engine.containers import Containers
from sampan.engine.events import Events
from sampan.engine.facade import Engine
from sampan.engine.heldfiles import HeldFiles
from sampan.engine.host import HostFacts
from sampan.engine.idblocks import IdBlocks
from sampan.engine.idmaps import IdMaps, probe
from sampan.engine.images import Images
from sampan.engine.launches import Sources
from sampan.engine.lookups import Lookups
from sampan.engine.mending import is_lost
from sampan.engine.networks import Networks
from sampan.engine.offers import Offers
from sampan.engine.paths import Paths
from sampan.engine.processes import Processes
from sampan.engine.pulls import Pulls
from sampan.engine.pushes import Pushes
from sampan.engine.reach import Reach
from sampan.engine.referrers import Referrers
from sampan.engine.registries import Registries
from sampan.engine.registrycaches import RegistryCaches
from sampan.engine.room import Room
from sampan.engine.seccomp import Filters
from sampan.engine.settings import Settings
from sampan.engine.shortcomings import shortcomings
from sampan.engine.stats import Statistics
from sampan.engine.stillness import Stillness
from sampan.engine.store import ContainerStore
from sampan.engine.system import System
from sampan.engine.visitors import Visitors
from sampan.engine.volumecopies import VolumeCopies
from sampan.engine.volumes import Volumes
from sampan.engine.watching import Watching
from sampan.engine.wiring import Foundations, wire
from sampan.errors import Internal
from sampan.images.blobs import BlobStore
from sampan.images.catalog import Catalog
from sampan.images.checking import Checker
from sampan.images.compressed import CompressedForms
from sampan.images.directories import spread
from sampan.images.drivers import Driver, choose, passed_over
from sampan.images.layers import EMPTY, LayerStore
from sampan.images.snapshots import Snapshots
from sampan.linux import kernel
from sampan.network import Bridges, Names
from sampan.network.naming import bridge_name
from sampan.runtime.runtime import Runtime, end_group, is_frozen
from sampan.runtime.usage import Gauges
from sampan.runtime.visits import Visits
from sampan.runtime.zygote import Zygote
from sampan.sandbox.unpack import Limits
from sampan.state.database import MENDED_BY, Database
from sampan.state.reserve import make_way
from sampan.volumes.local import LocalVolumes
from sampan.volumes.mounting import Marks
from sampan.volumes.plugins import Plugins

log = logging.getLogger(__name__)


class Wiring:
    """Built in dependency order; ``start`` recovers in the same order, ``close`` lets go in reverse."""

    def __init__(self, options: Options, paths: Paths, zygote: Zygote) -> None:
        self._paths = paths
        self._zygote = zygote
        make_way(paths.database)
        _make_directories(paths)
        self._driver = choose(paths.data, options.settings["storage-driver"])
        self._layering = passed_over(paths.data, self._driver, options.settings["storage-driver"])
        id_maps = _idmaps(options, self._driver)
        self._settings = Settings(paths=paths, options=options.engine, facts=HostFacts.read(id_maps))
        settings = self._settings
        self._room = Room(settings)
        self._id_blocks = IdBlocks(paths.data, first=options.engine.first_host_id)
        if is_lost(paths):
            raise Internal(f"state database {paths.database} is missing; {MENDED_BY}")
        self._database = Database.open(paths.database)
        self._events = Events(settings.now)
        self._watching = Watching()

        blobs = BlobStore(paths.blobs, paths.temporary)
        visits = Visits(zygote)
        layers = LayerStore(
            paths.layers,
            self._database,
            blobs,
            boot_id=kernel.boot_id(),
            driver=self._driver,
            limits=Limits(
                size=options.settings["layer-size-limit"],
                entries=options.settings["layer-entries-limit"],
                ratio=options.settings["layer-ratio-limit"],
            ),
            run=visits.unpack,
            drop_archives=options.settings["drop-compressed-blobs"],
        )
        self._snapshots = Snapshots(paths.data, paths.snapshots, layers)
        self._catalog = Catalog(self._database, blobs, layers, self._snapshots)
        self._runtime = Runtime(zygote, paths.bundles, request=REQUEST.get)
        self._names = Names()
        self._bridges = Bridges(
            data_root=paths.data,
            database=self._database,
            plan=networking.plan(options.settings, bridge_name(paths.data)),
            bypass=options.settings["published-ports"] == networking.BYPASS,
        )

        self._store = store = ContainerStore(self._database)
        lookups = Lookups(store=store, catalog=self._catalog)
        local = LocalVolumes(directory=paths.volumes, database=self._database)
        self._volumes = Volumes(
            local=local,
            plugins=Plugins(),
            marks=Marks(paths.volume_marks),
            users=lookups.users_of_volume,
            publish=self._events.publish,
        )
        self._networks = Networks(
            bridges=self._bridges,
            database=self._database,
            containers=lookups.everything,
            publish=self._events.publish,
        )
        images = Images(catalog=self._catalog, users=lookups.users_of_image, publish=self._events.publish)
        use_cases = wire(
            Foundations(
                store=store,
                events=self._events,
                sources=Sources(
                    catalog=self._catalog,
                    snapshots=self._snapshots,
                    volumes=self._volumes,
                    filters=Filters(paths.seccomp),
                ),
                bridges=self._bridges,
                network_id=self._networks.id_of,
                runtime=self._runtime,
                end_group=end_group,
                is_frozen=is_frozen,
                watching=self._watching,
                settings=settings,
                id_blocks=self._id_blocks,
                find_network=self._networks.custom,
                names=self._names,
                ports=self._bridges.ports,
                egress=self._bridges.egress,
            )
        )
        self._recovery = use_cases.recovery
        pulls = Pulls(images=images, catalog=self._catalog, publish=self._events.publish, settings=settings)
        self._build_cache = BuildCache(self._database, self._catalog)
        self._held = HeldFiles(f"{self._paths.data}/buildfiles", kernel.boot_id())
        self._secrets = Secrets(f"{self._paths.run}/buildsecrets")
        self._cache_mounts = CacheMounts(f"{self._paths.data}/buildcache")
        self._close_containers = use_cases.close
        gauges = Gauges()
        visitors = Visitors(store=store, snapshots=self._snapshots, volumes=self._volumes, visits=visits)
        stillness = Stillness(store=store, killing=use_cases.killing, events=self._events, settings=settings)
        share = default_limit(paths.data)

        def cache_limit() -> int:
            wanted = settings.options.build_cache_limit
            return share if wanted is None else wanted

        build_usage = BuildUsage(
            cache=self._build_cache,
            mounts=self._cache_mounts,
            held=self._held,
            catalog=self._catalog,
            clock=time.time_ns,
            limit=cache_limit,
        )
        self.engine = Engine(
            containers=use_cases.containers,
            execs=use_cases.execs,
            images=images,
            pulls=pulls,
            builds=self._builds(images, pulls, use_cases.containers, visits, build_usage),
            build_usage=build_usage,
            cache_mounts=CacheMountCopies(self._cache_mounts, visits),
            registries=Registries(settings=settings),
            offers=Offers(self._catalog),
            referrers=Referrers(settings),
            storage=Checker(self._catalog, self._snapshots, self._database),
            pushes=Pushes(
                images=images,
                catalog=self._catalog,
                forms=CompressedForms(self._database, blobs),
                publish=self._events.publish,
                settings=settings,
            ),
            networks=self._networks,
            reach=Reach(store=store, networks=self._networks, bridges=self._bridges),
            connections=Connections(
                store=store,
                networks=self._networks,
                bridges=self._bridges,
                places=use_cases.places,
                egress=use_cases.egress,
                events=self._events,
                settings=settings,
            ),
            volumes=self._volumes,
            volume_copies=VolumeCopies(
                volumes=self._volumes, local=local, store=store, stillness=stillness, visits=visits
            ),
            events=self._events,
            system=System(
                store=store,
                snapshots=self._snapshots,
                events=self._events,
                count_images=lambda: len(self._catalog),
                driver=self._driver,
                settings=settings,
                low_disk=self._room.warning,
                shortcomings=self._shortcomings,
            ),
            statistics=Statistics(store=store, measure=gauges.read, settings=settings),
            processes=Processes(store=store, events=self._events, members=gauges.processes),
            commits=Commits(
                store=store,
                catalog=self._catalog,
                snapshots=self._snapshots,
                images=images,
                stillness=stillness,
                events=self._events,
                pack=visits.pack,
            ),
            archives=Archives(
                store=store,
                visitors=visitors,
                visits=visits,
                snapshots=self._snapshots,
                events=self._events,
            ),
        )

    def _builds(
        self, images: Images, pulls: Pulls, containers: Containers, visits: Visits, usage: BuildUsage
    ) -> Builds:
        steps = BuildSteps(
            catalog=self._catalog,
            snapshots=self._snapshots,
            containers=containers,
            visits=visits,
            empty=f"{self._paths.layers}/{EMPTY}",
        )
        transfer = CacheTransfer(catalog=self._catalog, cache=self._build_cache)
        return Builds(
            catalog=self._catalog,
            images=images,
            pulls=pulls,
            cache=self._build_cache,
            transfer=transfer,
            registry_caches=RegistryCaches(
                transfer=transfer,
                catalog=self._catalog,
                forms=CompressedForms(self._database, self._catalog.blobs),
                settings=self._settings,
            ),
            steps=steps,
            explanations=Explanations(f"{self._paths.data}/buildinputs"),
            collect=usage.collect,
            held=self._held,
            mounts=BuildMounts(
                steps=steps, caches=self._cache_mounts, secrets=self._secrets, run=visits.unpack
            ),
            run=visits.unpack,
        )

    def _shortcomings(self) -> Iterable[str]:
        return shortcomings(
            bridge=self._bridges.refusal,
            driver=self._driver.name,
            layering=self._layering,
            cgroup_version=self._settings.facts.cgroup_version,
        )

    @property
    def runs(self) -> bool:
        """Whether a container runs."""
        return any(instance.task is not None for instance in self._store)

    def server(self) -> Server:
        """The API over this engine, not listening yet."""
        return Server(self.engine, guarded(ROUTES, self._room.need))

    def queues(self) -> dict[str, int]:
        """What is under way or waits for its turn, by kind: how many."""
        return {
            "starts": self._runtime.starting,
            "removals": self.engine.containers.being_removed,
            "layers": self._catalog.layers.directories.unpacking,
            "writes": self._database.waiting,
            "events": self._events.unread,
        }

    def zygote_pid(self) -> int:
        return self._zygote.pid

    async def start(self) -> None:
        """Recover what the last daemon left; afterwards the engine is true to the host."""
        self._room.watch()
        self._secrets.clear()
        self._held.clear()
        self._cache_mounts.clear()
        self._build_cache.load()
        await self._catalog.recover(lambda problem: log.warning("images: %s", problem))
        await self._volumes.start()
        await self._networks.start()
        await self._bridges.start()
        self._names.start(f"{self._paths.run}/names.sock")
        await self._zygote.start()
        await self._recovery.run()
        await self.engine.containers.remove_temporary()

    def reload(self, options: Options) -> None:
        """Take up new options for what is created from now on, and say so by an event."""
        self._settings.options = replace(options.engine, cgroup_parent=self._settings.options.cgroup_parent)
        self._events.publish(self.engine.system.reloaded(options.settings))

    async def close(self) -> None:
        """Let go of everything but what running containers need."""
        self._room.close()
        await self.engine.builds.close()
        await self._close_containers()
        await self._runtime.settle()
        self._events.close()
        self._watching.close()
        await self._catalog.close()
        self._names.close()
        await self._bridges.close()
        if not self.runs:
            self._id_blocks.give_back()
        self._database.close()


def _idmaps(options: Options, driver: Driver) -> IdMaps:
    if driver.kind == "fuse":
        return IdMaps(lacking=f"{driver.name} cannot show files with other ids")
    return probe(options.data_root, first=options.engine.first_host_id, count=options.engine.id_range)


def _make_directories(paths: Paths) -> None:
    shutil.rmtree(paths.temporary, ignore_errors=True)
    for path in (paths.blobs, paths.layers, paths.snapshots, paths.containers, paths.volumes, paths.seccomp):
        os.makedirs(path, 0o711, exist_ok=True)
    for name in os.listdir(paths.seccomp):
        if not name.endswith(".bpf"):  # what a killed daemon was writing
            os.unlink(f"{paths.seccomp}/{name}")
    os.makedirs(paths.bundles, 0o711, exist_ok=True)
    os.makedirs(paths.temporary, 0o700, exist_ok=True)
    # Layers are made here before they are moved to their place.
    spread(paths.temporary)
