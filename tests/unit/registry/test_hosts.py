from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument
from sampan.registry import challenges, credentials, hosts
from sampan.registry.settings import RegistrySettings


def test_docker_hub_is_behind_short_names_and_its_mirrors_come_first() -> None:
    settings = RegistrySettings(
        mirrors={"docker.io": ("https://mirror.example/hub/", "http://127.0.0.1:5000")}
    )
    first, second, own = hosts.endpoints("docker.io", settings)
    assert (first.host, first.path, first.schemes, first.mirror) == (
        "mirror.example",
        "/hub",
        ("https",),
        True,
    )
    assert (second.host, second.schemes, second.insecure) == ("127.0.0.1:5000", ("http",), True)
    assert (own.host, own.schemes, own.mirror) == ("registry-1.docker.io", ("https",), False)


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.8.9.1:5000", True),
        ("[::1]:5000", True),
        ("registry.example", False),
        ("named.example:5000", True),
        ("named.example", False),
        ("192.0.2.7:5000", True),
        ("192.0.3.7:5000", False),
    ],
)
def test_what_may_do_without_verified_tls(host: str, insecure: bool) -> None:
    settings = RegistrySettings(insecure=("named.example:5000", "192.0.2.0/24"))
    found = hosts.own(host, settings)
    assert found.insecure is insecure
    assert found.schemes == (("https", "http") if insecure else ("https",))


@pytest.mark.parametrize("url", ["ftp://a", "https://", "https://a/?b=c", "http://[", "[1]"])
def test_a_bad_mirror_is_named(url: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid mirror"):
        hosts.endpoints("a.example", RegistrySettings(mirrors={"a.example": (url,)}))


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    directory = tmp_path / "a.example:5000"
    directory.mkdir()
    (directory / "ca.crt").write_text("nonsense")
    endpoint = hosts.own("a.example:5000", RegistrySettings(certificates=(str(tmp_path),)))
    with pytest.raises(InvalidArgument, match=r"ca\.crt"):
        hosts.tls_context(endpoint)
    (directory / "ca.crt").unlink()
    assert hosts.tls_context(endpoint).verify_mode is ssl.CERT_REQUIRED


def test_challenges() -> None:
    header = (
        'Bearer realm="https://a/token",service="x \\"y\\"", scope="repository:a:pull,push", Basic realm=b'
    )
    bearer, basic = challenges.parse(header)
    assert bearer.scheme == "bearer"
    assert bearer.parameters == {
        "realm": "https://a/token",
        "service": 'x "y"',
        "scope": "repository:a:pull,push",
    }
    assert (basic.scheme, basic.parameters) == ("basic", {"realm": "b"})


@pytest.mark.parametrize("header", ["", "=", '"', "Bearer =", "Bearer realm=\x00", ",,,"])
def test_nonsense_is_no_challenge_with_a_realm(header: str) -> None:
    assert not any("realm" in found.parameters for found in challenges.parse(header))


def test_credentials_are_read_in_either_alphabet() -> None:
    import base64
    import json

    raw = json.dumps({"username": "ü?>", "password": "p~~", "serveraddress": "x"}).encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found = credentials.decode(encode(raw).decode())
        assert (found.username, found.password, found.server) == ("ü?>", "p~~", "x")
        assert "p~~" not in repr(found)
    assert not credentials.decode("")
    assert not credentials.decode(base64.b64encode(b"{}").decode())
    auth = base64.b64encode(b"u:p:q").decode()
    assert credentials.from_document({"auth": auth}).password == "p:q"


@pytest.mark.parametrize("header", ["###", "e30x", "W10=", "eyJ1c2VybmFtZSI6MX0=", "W1tb" * 10_000])
def test_bad_credentials_are_refused(header: str) -> None:
    with pytest.raises(InvalidArgument):
        credentials.decode(header)


@pytest.mark.parametrize(
    "document",
    [{"username": "\ud800"}, {"registrytoken": "a\r\nX: y"}, {"registrytoken": "é"}, {"registrytoken": "\0"}],
)
def test_what_cannot_be_sent_is_no_credential(document: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="invalid credentials"):
        credentials.from_document(document)


@pytest.mark.parametrize("host", ["[:::::]:5000", "[1]", "[::1"])
def test_brackets_around_what_is_no_address_are_refused(host: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid registry"):
        hosts.own(host, RegistrySettings())
