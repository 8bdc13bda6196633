"""The files of lists of manifests: whole or not there, and of any client that keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sampan.cli import manifeststore as store
from sampan.cli.manifeststore import Entry
from sampan.errors import Failure, NotFound
from sampan.spec import digest as digests
from sampan.spec import reference as references

LIST, ONE, TWO = (references.parse(f"example.org:5000/a/b:{tag}") for tag in ("list", "one", "two"))
RAW = b'{"schemaVersion":2,\n "config":{},"layers":[]}'
DESCRIPTOR = {
    "mediaType": store.OCI_MANIFEST,
    "digest": digests.of(RAW),
    "size": len(RAW),
    "platform": {"variant": "v7", "os": "linux", "architecture": "arm"},
}


@pytest.fixture(autouse=True)
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "manifests"


def _put(*names: references.Reference) -> None:
    for name in names:
        store.save(LIST, name, Entry(name.canonical, dict(DESCRIPTOR), RAW))


def test_what_was_saved_is_read(lists: Path) -> None:
    _put(TWO, ONE)
    assert [one.ref for one in store.entries(LIST)] == [ONE.canonical, TWO.canonical]
    found = store.entry(LIST, ONE)
    assert (found.raw, list(found.platform)) == (RAW, ["architecture", "os", "variant"])
    assert sorted(path.name for path in (lists / "example.org-5000_a_b-list").iterdir()) == [
        "example.org-5000_a_b-one",
        "example.org-5000_a_b-two",
    ]


def test_what_a_client_left_unfinished_is_passed_over(lists: Path) -> None:
    _put(ONE)
    (lists / "example.org-5000_a_b-list" / ".unfinished-1").write_text("{")
    assert len(store.entries(LIST)) == 1
    store.remove(LIST)
    assert list(lists.iterdir()) == []
    store.remove(LIST)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(NotFound, match=r"^No such manifest: example\.org:5000/a/b:list$"):
        store.entries(LIST)
    _put(ONE)
    with pytest.raises(NotFound, match=r"^No such manifest: example\.org:5000/a/b:two$"):
        store.entry(LIST, TWO)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"Ref":1}', '{"Ref":"x","Descriptor":{},"Raw":"?"}'),
        json.dumps({"Ref": "x", "Descriptor": DESCRIPTOR, "Raw": "W10="}),
    ],
)
def test_a_file_that_is_none_is_told_of(text: str, lists: Path) -> None:
    _put(ONE)
    path = lists / "example.org-5000_a_b-list" / "example.org-5000_a_b-one"
    path.write_text(text)
    with pytest.raises(Failure, match="is no manifest of a list"):
        store.entry(LIST, ONE)


def test_a_file_of_an_old_client_has_its_document_alone(lists: Path) -> None:
    _put(ONE)
    path = lists / "example.org-5000_a_b-list" / "example.org-5000_a_b-one"
    document = json.loads(path.read_text())
    del document["Raw"]
    path.write_text(json.dumps(document))
    assert json.loads(store.entry(LIST, ONE).raw) == json.loads(RAW)
