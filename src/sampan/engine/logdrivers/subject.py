"""What a log driver knows of its container, and the tag that is made of it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sampan.engine.model import Container
from sampan.errors import InvalidArgument
from sampan.wire import template
from sampan.wire.logblocks import stamp
from sampan.wire.template.evaluate import Row

DEFAULT_TAG = "{{.ID}}"
_SHORT = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One container. ``name`` has its slash, as Docker's drivers send it; ``created`` is RFC 3339.

    ``attributes`` are the labels and variables that the options ask for.
    """

    id: str
    name: str
    command: tuple[str, ...]
    image_id: str
    image_name: str
    created: str
    environment: tuple[str, ...]
    labels: Mapping[str, str]
    hostname: str
    attributes: Mapping[str, str]

    @classmethod
    def of(cls, container: Container, attributes: Mapping[str, str]) -> Subject:
        return cls(
            id=container.id,
            name=f"/{container.name}",
            command=(container.path, *container.args),
            image_id=container.image_id,
            image_name=container.config.image,
            created=stamp(container.created).decode(),
            environment=tuple(container.config.env or ()),
            labels=container.config.labels or {},
            hostname=socket.gethostname(),
            attributes=attributes,
        )


class _Info(Row):
    """The fields and methods of what Docker hands to a tag's template."""

    kind = "*logger.Info"

    def __init__(self, subject: Subject) -> None:
        image = subject.image_id.partition(":")[2] or subject.image_id
        self._fields: dict[str, Any] = {
            "ID": subject.id[:_SHORT],
            "FullID": subject.id,
            "Name": subject.name.removeprefix("/"),
            "ImageID": image[:_SHORT],
            "ImageFullID": subject.image_id,
            "ImageName": subject.image_name,
            "Command": " ".join(subject.command),
            "Hostname": subject.hostname,
            "DaemonName": "docker",
            "ContainerID": subject.id,
            "ContainerName": subject.name,
            "ContainerEntrypoint": subject.command[0],
            "ContainerArgs": list(subject.command[1:]),
            "ContainerImageID": subject.image_id,
            "ContainerImageName": subject.image_name,
            "ContainerCreated": subject.created,
            "ContainerEnv": list(subject.environment),
            "ContainerLabels": dict(subject.labels),
        }

    def field(self, name: str) -> Any:
        return self._fields[name]


def tag(subject: Subject, options: Mapping[str, str], default: str = DEFAULT_TAG) -> str:
    """The tag of a container's records. InvalidArgument in the words of Go's templates."""
    text = options.get("tag") or default
    if "{{" not in text:
        return text
    try:
        return template.execute(template.parse(text), _Info(subject), text)
    except template.TemplateError as error:
        words = str(error).replace("template: :", "template: log-tag:", 1)
        raise InvalidArgument(words.replace('executing ""', 'executing "log-tag"')) from None
