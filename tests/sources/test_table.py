"""The table of senders."""

import pytest

from sidecar.sources import SOURCES

JSON_TYPES = [
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON",
    "application/vnd.docker.distribution.events.v1+json",
    "application/vnd.docker.distribution.events.v2+json",
    "",
    " ",
]


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("content_type", JSON_TYPES)
def test_json_is_read_under_each_of_its_names(kind: str, content_type: str):
    """JSON is read, also as a vendor's ``+json``, and where the sender does not say what it sends."""
    assert SOURCES[kind].reads(content_type)


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize(
    "content_type", ["text/html", "application/x-www-form-urlencoded", "application/jsonp", "json"]
)
def test_what_is_not_json_is_not_read(kind: str, content_type: str):
    """A body that is declared as something else is not tried."""
    assert not SOURCES[kind].reads(content_type)


def test_a_row_is_found_under_its_kind():
    """The key of a row is the kind that settings name."""
    assert {kind: source.kind for kind, source in SOURCES.items()} == {kind: kind for kind in SOURCES}


def test_only_a_registry_that_blocks_is_answered_202_for_what_is_wrong():
    """Distribution repeats for ever what failed, and everything behind it waits."""
    assert [kind for kind, source in SOURCES.items() if source.retries_for_ever] == ["distribution"]
