"""References: normalisation, familiar names, and Docker's refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.spec import reference as references
from sampan.spec.reference import Reference

DIGEST = "sha256:" + "a" * 64

component = st.from_regex(r"[a-z0-9]{1,8}(?:[._-][a-z0-9]{1,4}){0,2}", fullmatch=True)
path = st.lists(component, min_size=1, max_size=3).map("/".join)
host = st.sampled_from(["docker.io", "localhost", "localhost:5000", "quay.io", "[::1]:5000", "Host"])
tag = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1", "docker.io/library/busybox:1", "busybox:1"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
        ("sampan/base", "docker.io/sampan/base", "sampan/base"),
        ("localhost/a", "localhost/a", "localhost/a"),
        ("localhost:5000/a:t", "localhost:5000/a:t", "localhost:5000/a:t"),
        ("quay.io/a/b/c", "quay.io/a/b/c", "quay.io/a/b/c"),
        ("Registry/a", "Registry/a", "Registry/a"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        (f"a@{DIGEST}", f"docker.io/library/a@{DIGEST}", f"a@{DIGEST}"),
        (f"a:t@{DIGEST}", f"docker.io/library/a:t@{DIGEST}", f"a:t@{DIGEST}"),
        ("a__b/c--d", "docker.io/a__b/c--d", "a__b/c--d"),
    ],
)
def test_names_are_normalised_and_come_back_familiar(text: str, canonical: str, familiar: str) -> None:
    reference = references.parse(text)
    assert (reference.canonical, reference.familiar) == (canonical, familiar)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("Foo", r"invalid reference format: repository name \(library/Foo\) must be lowercase"),
        ("a/Bc", r"invalid reference format: repository name \(a/Bc\) must be lowercase"),
        ("a b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("a:-t", "invalid reference format"),
        ("a@sha256:1", "invalid reference format"),
        ("a@sha256:" + "1" * 40, "invalid checksum digest length"),
        ("a//b", "invalid reference format"),
        ("a/../b", "invalid reference format"),
        ("a/b/", "invalid reference format"),
        ("http://a/b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("ä", "invalid reference format"),
        ("1" * 64, "cannot specify 64-byte hexadecimal strings"),
        ("a" * 256, "repository name must not be more than 255 characters"),
    ],
)
def test_what_is_no_reference_is_refused_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{message}"):
        references.parse(text)


@given(host, path, tag, st.none() | st.just(DIGEST))
def test_a_familiar_name_means_the_same_reference(
    domain: str, name: str, chosen: str | None, digest: str | None
) -> None:
    text = f"{domain}/{name}" + (f":{chosen}" if chosen else "") + (f"@{digest}" if digest else "")
    reference = references.parse(text)
    assert references.parse(reference.familiar) == reference
    assert references.parse(reference.canonical) == reference


def test_a_reference_without_tag_means_latest() -> None:
    assert references.parse("a").tagged().tag == "latest"
    assert references.parse(f"a@{DIGEST}").tagged().tag is None


def test_a_tag_target_has_a_tag_and_no_digest() -> None:
    assert references.with_tag("a/b", "").familiar == "a/b:latest"
    assert references.with_tag("a/b:x", "").familiar == "a/b:x"
    assert references.with_tag("a/b:x", "y").familiar == "a/b:y"
    with pytest.raises(InvalidArgument, match="invalid tag format"):
        references.with_tag("a", "-")
    with pytest.raises(InvalidArgument, match="refusing to create a tag with a digest reference"):
        references.with_tag(f"a@{DIGEST}", "")


def test_only_hexadecimal_may_be_an_id() -> None:
    assert references.id_prefix("abc123") == "abc123"
    assert references.id_prefix("sha256:abc") == "abc"
    assert references.id_prefix("abcg") is None
    assert references.id_prefix("a:b") is None


def test_familiar_keeps_the_library_prefix_where_it_is_needed() -> None:
    nested = Reference(domain="docker.io", path="library/a/b")
    assert references.parse(nested.familiar) == nested


@pytest.mark.parametrize("text", ["", "..", ".", "a/..", "a b", "a\0", "a:x", "[x]", "é.example", "a" * 300])
def test_what_is_no_domain(text: str) -> None:
    assert not references.is_domain(text)
    assert references.is_domain("registry.example:5000")
