"""Removing images, by Docker's rules.

Theory: a request names an image by a reference or by id. A reference is taken away; the image goes with its
last one. An id takes the image with all its names, if they are all in one repository. Conflicts that
``force`` overcomes are *soft* (a stopped container, several names), the others *hard* (a running container,
children).

Law: the answer tells, in order, every name and every layer that went.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from sampan.errors import Conflict
from sampan.images.model import Image, Layer
from sampan.spec import digest as digests
from sampan.spec import reference as references
from sampan.spec.reference import Reference

if TYPE_CHECKING:
    from sampan.engine.imageplatforms import Wanted
    from sampan.engine.lookups import ImageUse
    from sampan.images.catalog import Catalog
    from sampan.images.indexes import ImageIndex

Users = Callable[[str], "Sequence[ImageUse]"]


class Removed(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """One thing that went: a name (``untagged``), or an image or layer (``deleted``)."""

    untagged: str = ""
    deleted: str = ""


class Removal:
    """One request. ``tell`` is called with (image, action) for each event."""

    def __init__(self, catalog: Catalog, users: Users, tell: Callable[[Image, str], None]) -> None:
        self._catalog = catalog
        self._users = users
        self._tell = tell
        self.records: list[Removed] = []

    async def remove(self, text: str, *, force: bool, prune: bool) -> list[Removed]:
        """Remove what ``text`` names. NotFound, InvalidArgument, or Conflict in Docker's words."""
        image = self._catalog.find(text)
        names = self._catalog.names_of(image.id)
        if _is_id_of(text, image):
            if _in_one_repository(names):
                self._check(image, force=force, names=False)
                for name in names:
                    await self._untag(image, name)
            await self._delete(image, force=force, prune=prune, quiet=False)
            return self.records
        if not force and _in_one_repository(names) and (users := self._all_users(image)):
            raise Conflict(
                f'conflict: unable to remove repository reference "{text}" (must force) - container '
                f"{users[0].container_id[:12]} is using its referenced image {digests.short(image.id)}"
            )
        if await self._untag_with_digests(image, references.parse(text).tagged()):
            await self._delete(image, force=force, prune=prune, quiet=True)
        return self.records

    async def remove_platforms(self, text: str, wanted: Wanted, *, force: bool) -> list[Removed]:
        """Take platforms out of the index that ``text`` names, all or none of them."""
        index = self._catalog.index_of(text)
        assert index is not None
        found = dict.fromkeys(self._catalog.find_on(text, platform).id for platform in wanted)
        for image_id in found:
            part, users = self._catalog.get(image_id), self._users(image_id)
            if part is not None:
                _check_running(part, users)
                _check_stopped(part, () if force else users)
        for image_id in found:
            left, image = self._catalog.indexes.get(index.digest), self._catalog.get(image_id)
            if left is None or image is None:
                continue
            if left.without([image_id]) is None:
                await self._untag_index(image, left)
                if self._catalog.names_of(image_id):
                    continue  # it is known by names of its own too
            self._gone([image], await self._catalog.remove_part(left, image))
        return self.records

    async def _untag_index(self, image: Image, index: ImageIndex) -> None:
        """Take away the names that lead to an index, whose last image it is."""
        for name in self._catalog.names_of(image.id):
            if self._catalog.indexes.named(name.canonical) is index:
                await self._untag(image, name)

    async def _untag_with_digests(self, image: Image, name: Reference) -> bool:
        """Take a name away, and the digests of its repository with its last tag; whether none is left."""
        await self._untag(image, name)
        left = self._catalog.names_of(image.id)
        if not name.digest and not any(other.tag and other.name == name.name for other in left):
            for other in [other for other in left if other.name == name.name]:
                await self._untag(image, other)
        return not self._catalog.names_of(image.id)

    async def _delete(self, image: Image, *, force: bool, prune: bool, quiet: bool) -> None:
        """Delete an image that may be; then its parents that nobody named, if ``prune``."""
        try:
            self._check(image, force=force, names=True)
        except _Conflicting as conflict:
            dangling = not self._catalog.names_of(image.id) and not self._catalog.children_of(image.id)
            if quiet and (not dangling or conflict.used):
                return
            raise
        # Nothing is awaited between the check and the removal: no container can begin to use the image.
        self.records += [Removed(untagged=name.familiar) for name in self._catalog.names_of(image.id)]
        shown = [image, *self._further(image)]
        self._gone(shown, await self._catalog.remove(image))
        parent = self._catalog.get(image.config.parent) if prune else None
        if parent is not None and not self._catalog.names_of(parent.id):
            await self._delete(parent, force=False, prune=True, quiet=True)

    def _all_users(self, image: Image) -> list[ImageUse]:
        """The containers made from an image, or from what is shown as a part of it."""
        return [use for one in (image, *self._further(image)) for use in self._users(one.id)]

    def _further(self, image: Image) -> list[Image]:
        """The other platforms that are shown as parts of an image and have no name of their own."""
        ids = {one for index in self._catalog.indexes.mains(image.id) for one in index.images} - {image.id}
        found = [self._catalog.get(image_id) for image_id in sorted(ids)]
        return [one for one in found if one is not None and not self._catalog.names_of(one.id)]

    def _gone(self, images: Sequence[Image], layers: Sequence[Layer]) -> None:
        """Tell which of ``images`` are not here any more, and of the layers that went with them."""
        for image in images:
            if self._catalog.get(image.id) is None:
                self._tell(image, "delete")
                self.records.append(Removed(deleted=image.id))
        self.records += [Removed(deleted=layer.chain_id) for layer in layers]

    async def _untag(self, image: Image, name: Reference) -> None:
        await self._catalog.untag(name)
        self._tell(image, "untag")
        self.records.append(Removed(untagged=name.familiar))

    def _check(self, image: Image, *, force: bool, names: bool) -> None:
        """Raise the conflict that forbids deleting the image; ``names``: having any is one, unless forced."""
        users = self._all_users(image)
        if self._catalog.children_of(image.id):
            raise _Conflicting(image, "image has dependent child images", hard=True)
        _check_running(image, users)
        if force:
            return
        if names and self._catalog.names_of(image.id):
            raise _Conflicting(image, "image is referenced in multiple repositories")
        _check_stopped(image, users)


def _check_running(image: Image, users: Sequence[ImageUse]) -> None:
    for user in users:
        if user.running:
            message = f"image is being used by running container {user.container_id[:12]}"
            raise _Conflicting(image, message, hard=True, used=True)


def _check_stopped(image: Image, users: Sequence[ImageUse]) -> None:
    if users:
        message = f"image is being used by stopped container {users[0].container_id[:12]}"
        raise _Conflicting(image, message, used=True)


class _Conflicting(Conflict):
    def __init__(self, image: Image, why: str, *, hard: bool = False, used: bool = False) -> None:
        force = "cannot be forced" if hard else "must be forced"
        super().__init__(f"conflict: unable to delete {digests.short(image.id)} ({force}) - {why}")
        self.used = used


def _is_id_of(text: str, image: Image) -> bool:
    """Whether the text is the image's id or the beginning of it, rather than a name."""
    prefix = references.id_prefix(text)
    return prefix is not None and image.id.startswith(f"sha256:{prefix}")


def _in_one_repository(names: Sequence[Reference]) -> bool:
    """Whether at most one tag, and no other repository, leads to an image."""
    return len([name for name in names if not name.digest]) <= 1 and len({name.name for name in names}) <= 1
