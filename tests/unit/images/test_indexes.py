"""Which part of an index is meant: by platform, and by nobody in particular."""

from __future__ import annotations

import pytest
from tests import archives

from sampan.images.indexes import ImageIndex, Part
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec import platform as platforms

HERE = ("linux", platforms.own_architecture(), "")
PARTS = (
    ("linux", "arm", "v5"),
    ("linux", "arm", "v7"),
    ("linux", "s390x", ""),
    ("windows", platforms.own_architecture(), ""),
)


def _part(platform: tuple[str, str, str]) -> Part:
    config = "/".join(platform).encode()
    raw = documents.encode(
        {
            "schemaVersion": 2,
            "config": archives.descriptor(config, documents.OCI_CONFIG),
            "layers": [],
        }
    )
    manifest = documents.parse_manifest(raw)
    words = dict(zip(("os", "architecture", "variant"), platform, strict=True))
    descriptor = documents.parse_descriptor(
        archives.descriptor(raw, documents.OCI_MANIFEST, platform=words), "a test"
    )
    return Part(descriptor=descriptor, manifest=manifest, image_id=digests.of(config), platform=platform)


def index(*listed: tuple[str, str, str], here: tuple[tuple[str, str, str], ...] | None = None) -> ImageIndex:
    parts = {platform: _part(platform) for platform in listed}
    entries = [part.descriptor.document() for part in parts.values()]
    raw = documents.encode({"schemaVersion": 2, "manifests": entries})
    kept = tuple(parts[platform] for platform in (here or listed))
    return ImageIndex(document=documents.parse_index(raw), main=kept[0].image_id, parts=kept)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("linux/arm/v7", ("linux", "arm", "v7")),
        ("linux/arm/v6", ("linux", "arm", "v5")),
        ("linux/arm/v5", ("linux", "arm", "v5")),
        ("linux/arm", ("linux", "arm", "v7")),
        ("linux/s390x", ("linux", "s390x", "")),
        ("linux/riscv64", None),
        ("darwin", None),
    ],
)
def test_the_most_fitting_variant_is_chosen(wanted: str, found: tuple[str, str, str] | None) -> None:
    part = index(*PARTS).on(platforms.parse(wanted))
    assert (part.platform if part else None) == found


def test_another_main_image_is_this_machines_or_the_first() -> None:
    whole = index(*PARTS, HERE)
    ids = [part.image_id for part in whole.parts]
    left = whole.without([ids[0]])
    assert left is not None
    assert left.main == ids[-1]
    others = whole.without([ids[0], ids[-1]])
    assert others is not None
    assert others.main == ids[1]
    assert whole.without(ids) is None
    kept = index(PARTS[0], PARTS[1]).without([ids[1]])
    assert kept is not None
    assert kept.main == ids[0]


def test_it_is_whole_when_everything_listed_is_here() -> None:
    assert index(*PARTS).is_whole
    assert not index(*PARTS, here=PARTS[:2]).is_whole


def test_its_blobs_are_its_own_and_those_of_the_parts_that_are_here() -> None:
    partly = index(*PARTS, here=PARTS[:1])
    (part,) = partly.parts
    assert partly.blobs == {partly.digest, part.descriptor.digest, part.manifest.config.digest}
