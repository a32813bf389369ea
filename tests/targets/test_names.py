"""Names of containers and images, and what they tell."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.targets.names import base_name, is_image_id, own_name, previous_reference, refers_to, replacement_of
from tests.targets.test_discovery import COMPOSE, entry

Json = dict[str, Any]
HEX = "a" * 64


@pytest.mark.parametrize(
    "name, labels, created, is_one",
    [
        ("0123456789ab_web", COMPOSE, 100, True),
        ("0123456789ab_web", COMPOSE, 99, False),
        ("0123456789ab_web", {}, 100, False),
        ("0123456789ab_other-web", COMPOSE, 100, False),
        ("my_web", COMPOSE, 100, False),
        ("web", COMPOSE, 100, False),
    ],
)
def test_what_compose_made_to_replace_a_container_is_known_by_its_name(
    name: str, labels: Json, created: int, is_one: bool
) -> None:
    """It is Compose's, newer than ours, and named by the short id of another one and the name it is to have."""
    listed = entry(name) | {"Labels": labels, "Created": created}
    assert replacement_of("web", [listed], since=100.9) == (listed["Id"] if is_one else None)
    assert replacement_of("web", [listed], since=None) is None


def test_names_are_read_past_links_and_suffixes() -> None:
    """Links add names with more slashes; an entry without a name goes by its id."""
    assert own_name({"Names": ["/db/web", "/web"], "Id": "x"}) == "web"
    assert own_name({"Names": [], "Id": "abcdefghijklmnop"}) == "abcdefghijkl"
    assert base_name("web.sidecar-new") == base_name("web.sidecar-old") == base_name("web") == "web"


@pytest.mark.parametrize(
    "text, is_id",
    [(f"sha256:{HEX}", True), (HEX, True), ("abcdefabcdef", True), ("cafe", False), ("app:1", False), ("app", False)],
)
def test_an_image_id_is_told_from_a_reference(text: str, is_id: bool) -> None:
    """With its algorithm, or of an id's length in hexadecimal digits."""
    assert is_image_id(text) is is_id


def test_the_previous_image_has_a_tag_of_ours() -> None:
    """What cannot stand in a tag is replaced, and no tag is too long or empty."""
    assert previous_reference("web") == ("sidecar-previous", "web")
    assert previous_reference("ghcr.io/a/b:1")[1] == "ghcr.io_a_b_1"
    assert len(previous_reference("x" * 300)[1]) == 128
    assert previous_reference(".-")[1] == "_"


@pytest.mark.parametrize(
    "reference, is_it",
    [("web:1", True), ("docker.io/library/web:1", True), ("web", False), ("sha256:" + "a" * 64, False), ("W:1", False)],
)
def test_a_reference_is_compared_as_it_is_meant(reference: str, is_it: bool) -> None:
    """However short it was written; one that cannot be read is no other's."""
    assert refers_to(reference, "docker.io/library/web:1") is is_it
