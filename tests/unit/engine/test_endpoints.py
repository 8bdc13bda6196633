"""Who may ask for names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.fakes.engine import World

from sampan.engine.endpoints import Place, Places
from sampan.engine.model import EndpointSettings
from sampan.sandbox.messages import Endpoint

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(slots=True)
class Asked:
    """Stands where the server of names is: who is served, and what they were last told to ask about."""

    served: set[str]
    told: dict[str, list[str]] = field(default_factory=dict)
    path = "names.sock"

    def serves(self, container_id: str) -> bool:
        return container_id in self.served

    def admit(self, container_id: str, networks: list[str], *_: object) -> None:
        self.told[container_id] = networks


async def test_who_left_its_last_network_with_names_asks_about_it_no_more(tmp_path: Path) -> None:
    world = World(str(tmp_path))
    container = world.containers.get(await world.create())
    names: Any = Asked({container.id})
    places = Places(
        bridges=world.bridges,
        network_id=str,
        find_network=lambda _: None,
        names=names,
        settings=world.settings,
    )
    endpoint = Endpoint(bridge="b", host_name="h", addresses=("10.0.0.2/16",), gateway="10.0.0.1")
    place = Place(
        name="bridge",
        network_id="b",
        key="bridge",
        custom=False,
        settings=EndpointSettings(),
        endpoint=endpoint,
    )
    assert places.admit(container, [place]) == ""
    assert names.told == {container.id: []}
    names.served.clear()
    names.told.clear()
    assert places.admit(container, [place]) == ""
    assert names.told == {}
    world.database.close()
