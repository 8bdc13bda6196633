"""Which images a filter of the API means. Functions of values only."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.engine.model import Filters
    from sampan.images.model import Image
    from sampan.spec.reference import Reference


def passes_labels(filters: Filters, image: Image) -> bool:
    """Whether an image has the labels that ``label`` wants, and none that ``label!`` does not."""
    labels = image.config.config.labels
    if not filters.matches_labels(labels):
        return False
    return not any(_has_label(labels, wanted) for wanted in filters.get("label!"))


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, separator, value = wanted.partition("=")
    return name in labels and (not separator or labels[name] == value)


def is_tag_of(name: Reference, repository: Reference) -> bool:
    """Whether a name is a tag of that repository."""
    return bool(name.tag) and name.name == repository.name


def matches(name: Reference, patterns: Iterable[str]) -> bool:
    """Docker's match of shell patterns, whose ``*`` stops at a slash, with the name and with name:tag."""
    for pattern in patterns:
        if _unclosed(pattern):
            raise InvalidArgument("syntax error in pattern")
        expression = re.compile(fnmatch.translate(pattern).replace(".*", "[^/]*"), re.DOTALL)
        if expression.fullmatch(name.familiar) or expression.fullmatch(name.familiar_name):
            return True
    return False


def _unclosed(pattern: str) -> bool:
    """Whether a shell pattern ends within a class of characters or after a backslash."""
    plain = re.sub(r"\\.", "", pattern, flags=re.DOTALL)
    return plain.endswith("\\") or "[" in re.sub(r"\[[^]]+\]", "", plain)
