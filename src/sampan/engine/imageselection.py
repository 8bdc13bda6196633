"""Which images, names and platforms the words of a request to save mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sampan.engine.imagefilters import is_tag_of
from sampan.errors import NotFound
from sampan.images import saving
from sampan.spec import reference as references

if TYPE_CHECKING:
    from sampan.engine.imageplatforms import Wanted
    from sampan.images.catalog import Catalog
    from sampan.images.indexes import ImageIndex
    from sampan.images.model import Image
    from sampan.spec.reference import Reference

    Names = tuple[Reference, ...]


def select(catalog: Catalog, texts: Sequence[str], wanted: Wanted) -> list[saving.Selected]:
    """What is saved for ``texts``, of the platforms ``wanted``. NotFound in Docker's words."""
    found: dict[tuple[str, str], saving.Selected] = {}
    for text in texts:
        for image, names in _named(catalog, text):
            groups = by_index(catalog, image, names) if names else [(names, catalog.index_of(text))]
            for own, index in groups:
                for one in _on_platforms(catalog, text, saving.Selected(image, own, index), wanted):
                    key = (one.image.id, one.whole.digest if one.whole else "")
                    before = found[key].names if key in found else ()
                    found[key] = one._replace(names=_sorted((*before, *own)))
    return list(found.values())


def _sorted(names: Iterable[Reference]) -> Names:
    return tuple(sorted(dict.fromkeys(names), key=lambda name: name.canonical))


def by_index(
    catalog: Catalog, image: Image, names: Sequence[Reference]
) -> list[tuple[Names, ImageIndex | None]]:
    """An image's names by the index to which they lead."""
    if not names:
        return [((), catalog.indexes.of(image.id))]
    found: dict[str, tuple[ImageIndex | None, list[Reference]]] = {}
    indexes = {name: catalog.indexes.named(name.canonical) for name in names}
    for name, index in indexes.items():
        if index is None and name.digest and not name.tag:  # of its manifest alone, as a push leaves it
            index = next((one for one in indexes.values() if one and one.lists(name.digest)), None)
        found.setdefault(index.digest if index else "", (index, []))[1].append(name)
    return [(tuple(own), index) for index, own in found.values()]


def _on_platforms(
    catalog: Catalog, text: str, one: saving.Selected, wanted: Wanted
) -> Iterable[saving.Selected]:
    """An index with all that is here of it, or an image for each platform wanted."""
    if not wanted:
        several = one.whole is not None and len(one.whole.parts) > 1
        return [one if several else one._replace(whole=None)]
    name = one.names[0].familiar if one.names else text
    try:
        return [one._replace(image=catalog.find_on(name, platform), whole=None) for platform in wanted]
    except NotFound as error:
        raise NotFound(f"no suitable export target found: {error}") from error


def _named(catalog: Catalog, text: str) -> Iterable[tuple[Image, Names]]:
    """What a name means: an id an image without names, a tag that one, a repository every tag of it."""
    prefix = references.id_prefix(text)
    image = _found(catalog, text)
    if image is not None and prefix is not None and image.id.startswith(f"sha256:{prefix}"):
        return [(image, ())]
    reference = references.parse(text)
    if reference.tag or reference.digest:
        return [(catalog.find(text), (reference,) if reference.tag else ())]
    chosen = [
        (image, tuple(name for name in catalog.names_of(image.id) if is_tag_of(name, reference)))
        for image in catalog
    ]
    chosen = [(image, names) for image, names in chosen if names]
    if not chosen and image is None:
        raise NotFound(f"No such image: {text}")
    return chosen or [(catalog.find(text), ())]


def _found(catalog: Catalog, text: str) -> Image | None:
    try:
        return catalog.find(text)
    except NotFound:
        return None
