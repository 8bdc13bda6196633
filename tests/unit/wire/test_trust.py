"""Whom a client trusts, tried by handshakes in memory."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from tests.certificates import Authority

from sampan.wire.trust import trusting


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    found = Authority(tmp_path_factory.mktemp("certificates"))
    found.sign("server")
    return found


def shake_hands(client_rules: ssl.SSLContext, place: Path, name: str = "127.0.0.1") -> None:
    """Raises ssl.SSLCertVerificationError if the client does not accept the server of ``place``."""
    server_rules = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_rules.load_cert_chain(place / "server.pem", place / "server-key.pem")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_rules.wrap_bio(back, there, server_hostname=name)
    server = server_rules.wrap_bio(there, back, server_side=True)
    for peer in (client, server, client, server):
        try:
            peer.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.getpeercert()


def test_an_authority_need_not_say_what_its_key_is_for(authority: Authority) -> None:
    shake_hands(trusting(f"{authority.place}/ca.pem"), authority.place)


def test_a_server_of_which_the_certificate_itself_is_given(authority: Authority) -> None:
    shake_hands(trusting(f"{authority.place}/server.pem"), authority.place)


def test_others_are_not_trusted(authority: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="local issuer"):
        shake_hands(trusting(), authority.place)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(trusting(f"{authority.place}/ca.pem"), authority.place, "127.0.0.2")
