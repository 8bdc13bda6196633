"""``manifest``: look at manifests in registries, and put lists of them together here and push them.

No engine is asked: the lists are files beside the client's settings (``manifeststore``), and the registry is
spoken to from here (``manifestsource``).
"""

from __future__ import annotations

from sampan.cli import manifeststore as store
from sampan.cli.command import Command, Options
from sampan.cli.context import Context, out
from sampan.errors import Failure, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.manifestsource import Source
    from sampan.cli.manifeststore import Entry
    from sampan.spec.reference import Reference

_SYSTEMS = {
    "darwin": "386 amd64 arm arm64",
    "dragonfly": "amd64",
    "freebsd": "386 amd64 arm",
    "linux": "386 amd64 arm arm64 mips64 mips64le ppc64le riscv64 s390x",
    "netbsd": "386 amd64 arm",
    "openbsd": "386 amd64 arm",
    "plan9": "386 amd64",
    "solaris": "amd64",
    "windows": "386 amd64",
}
_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_INDEX = "application/vnd.oci.image.index.v1+json"


def _reference(text: str) -> Reference:
    """The reference, with the tag ``latest`` where it has neither tag nor digest. InvalidArgument."""
    from sampan.spec import reference as references

    return references.parse(text).tagged()


def _source(reference: Reference, options: Options, *, writing: bool = False) -> Source:
    from sampan.cli.manifestsource import Source

    return Source(reference, insecure=options["insecure"], writing=writing)


def _read(reference: Reference, options: Options) -> Entry | list[Entry]:
    with _source(reference, options) as source:
        return source.read()


# ---------------------------------------------------------------------- inspect


def _inspect(_context: Context, options: Options, arguments: list[str]) -> int:
    reference = _reference(arguments[-1])
    found: Entry | list[Entry]
    if len(arguments) == 2:
        found = store.entry(_reference(arguments[0]), reference)
    else:
        try:
            found = store.entries(reference)
        except Failure:
            found = _read(reference, options)
    out(_shown(reference, found, verbose=options["verbose"]))
    return 0


def _shown(reference: Reference, found: Entry | list[Entry], *, verbose: bool) -> str:
    from json import dumps

    if verbose:
        shown = [one.document() for one in found] if isinstance(found, list) else found.document()
        return dumps(shown, indent="\t", ensure_ascii=False)
    if not isinstance(found, list):
        from sampan.cli.inspect import indented

        return indented(found.raw.decode("utf-8", "replace"), "\t")
    try:
        return _assembled(reference, found)[0]
    except Failure as error:
        raise Failure(f"failed to assemble ManifestDescriptor: {error}") from error


def _assembled(target: Reference, found: list[Entry]) -> tuple[str, str]:
    """The list of manifests as text, and its media type: that of the first one's kind."""
    from json import dumps

    first = found[0].descriptor["mediaType"] if found else ""
    kind = _INDEX if first == store.OCI_MANIFEST else _LIST
    manifests = [_descriptor(target, one) for one in found]
    shown = {"schemaVersion": 2, "mediaType": kind, "manifests": manifests}
    return dumps(shown, indent=3, ensure_ascii=False), kind


def _descriptor(target: Reference, one: Entry) -> dict[str, Any]:
    from sampan.spec import reference as references

    domain = references.parse(one.ref).domain
    if domain != target.domain:
        raise Failure(
            f"cannot use source images from a different registry than the target image: {domain} != "
            f"{target.domain}"
        )
    kept = one.descriptor
    return {
        "mediaType": kept["mediaType"],
        "size": kept["size"],
        "digest": kept["digest"],
        "platform": one.platform or {"architecture": "", "os": ""},
    }


# ---------------------------------------------------------------------- put together


def _create(_context: Context, options: Options, arguments: list[str]) -> int:
    try:
        target = _reference(arguments[0])
    except Failure as error:
        raise Failure(f"error parsing name for manifest list {arguments[0]}: {error}") from error
    try:
        store.entries(target)
        if not options["amend"]:
            raise Failure("refusing to amend an existing manifest list with no --amend flag")
    except NotFound:
        pass  # it begins now
    for text in arguments[1:]:
        reference = _reference(text)
        try:
            found: Entry | list[Entry] = store.entry(target, reference)
        except NotFound:
            found = _read(reference, options)
        if isinstance(found, list):
            raise Failure(f"{reference.canonical} is a manifest list")
        store.save(target, reference, found)
    out(f"Created manifest list {target.canonical}")
    return 0


def _annotate(_context: Context, options: Options, arguments: list[str]) -> int:
    named, image = arguments
    try:
        target = _reference(named)
    except Failure as error:
        raise Failure(f"annotate: error parsing name for manifest list {named}: {error}") from error
    try:
        reference = _reference(image)
    except Failure as error:
        raise Failure(f"annotate: error parsing name for manifest {image}: {error}") from error
    try:
        found = store.entry(target, reference)
    except NotFound as error:
        raise Failure(f"manifest for image {image} does not exist in {named}") from error
    from itertools import chain

    platform = {"architecture": "", "os": "", **found.platform}
    for flag, member in _MEMBERS.items():
        if options[flag]:
            platform[member] = options[flag]
    features = dict.fromkeys((*platform.get("os.features", ()), *chain(*options["os-features"])))
    if features:
        platform["os.features"] = list(features)
    if platform["architecture"] not in _SYSTEMS.get(platform["os"], "").split():
        raise Failure(
            f"manifest entry for image has unsupported os/arch combination: {options['os']}/{options['arch']}"
        )
    found.descriptor["platform"] = platform
    found.descriptor["platform"] = found.platform
    store.save(target, reference, found)
    return 0


_MEMBERS = {"arch": "architecture", "os": "os", "os-version": "os.version", "variant": "variant"}


def _rm(_context: Context, _options: Options, arguments: list[str]) -> int:
    wrong = []
    for text in arguments:
        try:
            target = _reference(text)
            store.entries(target)
            store.remove(target)
        except Failure as error:
            wrong.append(str(error))
    if wrong:
        raise Failure("\n".join(wrong))
    return 0


# ---------------------------------------------------------------------- push


def _push(_context: Context, options: Options, arguments: list[str]) -> int:
    target = _reference(arguments[0])
    found = store.entries(target)
    if not found:
        raise Failure(f"{target.canonical} not found")
    for one in found:
        if not one.platform.get("architecture") or not one.platform.get("os"):
            raise Failure(f"manifest {one.ref} must have an OS and Architecture to be pushed to a registry")
    text, kind = _assembled(target, found)
    with _source(target, options, writing=True) as source:
        _push_manifests(source, target, found)
        name = target.tag or target.digest or ""
        out(source.repository.put_manifest(name, text.encode(), kind))
    if options["purge"]:
        store.remove(target)
    return 0


def _push_manifests(source: Source, target: Reference, found: list[Entry]) -> None:
    """Have what other repositories hold in that of the list: blobs by mounting, then manifests."""
    from sampan.spec import image as documents
    from sampan.spec import reference as references

    origins = [references.parse(one.ref) for one in found]
    moved = [(one, origin) for one, origin in zip(found, origins, strict=True) if origin.path != target.path]
    for one, origin in moved:
        manifest = documents.parse_manifest(one.raw, one.descriptor["mediaType"])
        for blob in (manifest.config, *manifest.layers):
            if not source.repository.mount(blob.digest, origin.path) and one.platform["os"] != "windows":
                raise Failure(f"error mounting {origin.name}@{blob.digest} to {target.canonical}")
    for one, _ in moved:
        digest = one.descriptor["digest"]
        put = source.repository.put_manifest(digest, one.raw, one.descriptor["mediaType"])
        out(f"Pushed ref {target.name}@{digest} with digest: {put}")


_INSECURE = ("", "insecure", "bool", "Allow communication with an insecure registry")

COMMANDS: tuple[Command, ...] = (
    Command(
        "manifest annotate",
        "[OPTIONS] MANIFEST_LIST MANIFEST",
        "Add information to a manifest of a local list",
        _annotate,
        flags=(
            ("", "arch", "string", "Set architecture"),
            ("", "os", "string", "Set operating system"),
            ("", "os-features", "strings", "Set operating system feature"),
            ("", "os-version", "string", "Set operating system version"),
            ("", "variant", "string", "Set architecture variant"),
        ),
        least=2,
        most=2,
    ),
    Command(
        "manifest create",
        "MANIFEST_LIST MANIFEST [MANIFEST...]",
        "Create a local manifest list",
        _create,
        flags=(("a", "amend", "bool", "Amend an existing manifest list"), _INSECURE),
        least=2,
    ),
    Command(
        "manifest inspect",
        "[OPTIONS] [MANIFEST_LIST] MANIFEST",
        "Display an image manifest, or manifest list",
        _inspect,
        flags=(_INSECURE, ("v", "verbose", "bool", "Show layers and platform too")),
        least=1,
        most=2,
    ),
    Command(
        "manifest push",
        "[OPTIONS] MANIFEST_LIST",
        "Push a manifest list to a repository",
        _push,
        flags=(
            ("", "insecure", "bool", "Allow push to an insecure registry"),
            ("p", "purge", "bool", "Remove the local manifest list after push"),
        ),
        least=1,
        most=1,
    ),
    Command(
        "manifest rm",
        "MANIFEST_LIST [MANIFEST_LIST...]",
        "Delete one or more local manifest lists",
        _rm,
        least=1,
    ),
)
