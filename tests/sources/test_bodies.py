"""Bodies of every wrong shape: each is Malformed, which tells its sender what was expected and nothing else."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.core.hint import Reading
from sidecar.errors import Malformed
from sidecar.sources import SOURCES
from sidecar.sources.distribution import MOST_EVENTS
from sidecar.sources.generic import MOST_IMAGES

KINDS = sorted(SOURCES)
DEEP = 100_000
HUGE = 10**5

WRONG: Mapping[str, bytes] = {
    "nothing": b"",
    "white space": b" \n",
    "no JSON": b"<xml/>",
    "half of it": b'{"image": "shop/we',
    "a form": b"payload=%7B%7D",
    "a list": b"[]",
    "a list of bodies": b'[{"image": "shop/web"}]',
    "a number": b"1",
    "a text": b'"shop/web"',
    "null": b"null",
    "true": b"true",
    "not a number": b"NaN",
    "no field": b"{}",
    "bad UTF-8": b'{"image": "\xff\xfe"}',
    "UTF-16": '{"image": "shop/web"}'.encode("utf-16"),
    "half of a pair of surrogates": rb'{"image": "\ud800"}',
    "a control character": b'{"image": "shop/\x00web"}',
    "a deep list": b'{"image": ' + b"[" * DEEP,
    "a deep list in an unknown field": b'{"x": ' + b"[" * DEEP + b"]" * DEEP + b', "image": "shop/web"}',
    "a huge number in an unknown field": b'{"x": ' + b"9" * HUGE + b', "image": "shop/web"}',
}
NESTED: Mapping[str, list[Any]] = {
    "dockerhub": [
        {"repository": None},
        {"repository": []},
        {"repository": {}},
        {"repository": {"repo_name": None, "name": None}},
        {"repository": {"repo_name": ""}},
        {"repository": {"repo_name": 5}},
        {"repository": {"repo_name": ["shop/web"]}},
        {"repository": {"repo_name": "shop/web"}, "push_data": []},
        {"repository": {"repo_name": "shop/web"}, "push_data": {"tag": 5}},
        {"repository": {"repo_name": "shop/web"}, "push_data": {"tag": "no tag"}},
        {"repository": {"repo_name": "shop/web"}, "push_data": {"tag": "x" * 129}},
        {"repository": {"repo_name": "shop/web"}, "push_data": {"tag": "a/b"}},
        {"repository": {"repo_name": "shop/web"}, "push_data": {"tag": "1.4", "pushed_at": []}},
        {"repository": {"repo_name": "shop/web"}, "push_data": {"tag": "1.4", "pushed_at": float("nan")}},
        {"repository": {"repo_name": "shop/web", "star_count": "many"}, "push_data": {"tag": "1.4"}},
        {"repository": {"repo_name": "shop/web", "is_private": "perhaps"}, "push_data": {"tag": "1.4"}},
        {"repository": {"repo_name": "Shop/Web"}, "push_data": {"tag": "1.4"}},
        {"repository": {"repo_name": "../../etc"}, "push_data": {"tag": "1.4"}},
        {"repository": {"repo_name": "shop/web; rm -rf /"}, "push_data": {"tag": "1.4"}},
        {"repository": {"repo_name": "s" * 10_000}, "push_data": {"tag": "1.4"}},
    ],
    "distribution": [
        {"events": {}},
        {"events": 5},
        {"events": [None]},
        {"events": [5] * HUGE},
        {"events": [{}] * (MOST_EVENTS + 1)},
        {"events": [{"action": 5}]},
        {"events": [{"target": []}]},
        {"events": [{"action": "push", "target": {"repository": {}, "tag": "1.4"}}]},
        {"events": [{"action": "push", "target": {"repository": "A", "tag": "1.4"}, "request": {"host": "a.b"}}]},
        {"events": [{"action": "push", "target": {"repository": "a", "tag": "1 4"}, "request": {"host": "a.b"}}]},
        {"events": [{"action": "push", "target": {"repository": "a", "tag": "1"}, "request": {"host": "a.b/../c"}}]},
        {"events": [{"action": "push", "target": {"repository": "a", "tag": "1"}, "request": {"host": "a b.c"}}]},
    ],
    "generic": [
        {"image": 5},
        {"image": ""},
        {"image": "Shop/Web"},
        {"image": "shop/web:"},
        {"image": "shop/web@sha256:12"},
        {"image": "https://registry.example.com/shop/web"},
        {"images": "shop/web"},
        {"images": [None]},
        {"images": [5] * HUGE},
        {"images": ["shop/web"] * (MOST_IMAGES + 1)},
        {"images": ["shop/web", "Shop/Web"]},
        {"image": None, "images": None},
        {"image": "shop/web", "pusher": 5},
    ],
}


def parse(kind: str, body: bytes) -> Reading:
    return SOURCES[kind].parse({}, body, {})


def complaint(kind: str, body: bytes) -> str:
    with pytest.raises(Malformed) as raised:
        parse(kind, body)
    return str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WRONG)
def test_a_body_of_a_wrong_shape_is_malformed(kind: str, name: str):
    """What is no body of this sender is refused, and the message says what one looks like."""
    message = complaint(kind, WRONG[name])
    assert "expected" in message
    assert len(message) < 500


@pytest.mark.parametrize("kind, body", [(kind, body) for kind, bodies in NESTED.items() for body in bodies])
def test_a_wrong_part_is_malformed(kind: str, body: object):
    """What stands where something else belongs is refused, however much of it there is."""
    message = complaint(kind, json.dumps(body).encode())
    assert "expected" in message
    assert len(message) < 500


def test_the_complaint_names_the_place_and_not_the_value():
    """A sender learns where the body is wrong; a secret that stands there by mistake is not repeated."""
    body = {"repository": {"repo_name": "shop/web", "star_count": "hunter2-hunter2"}, "push_data": {"tag": "1"}}
    message = complaint("dockerhub", json.dumps(body).encode())
    assert "repository.star_count" in message
    assert "hunter2" not in message


def test_what_is_echoed_of_a_reference_is_bounded():
    """Of a long reference, or one that grows when it is written, a part is repeated."""
    for text in ("A" * 100_000, "\x7f" * 1_000, "\U0001f433" * 1_000):
        assert len(complaint("generic", json.dumps({"image": text}).encode())) < 250


def test_what_is_kept_is_bounded():
    """An account and an address of any length are cut."""
    body = {
        "callback_url": "https://" + "a" * 10_000,
        "repository": {"repo_name": "shop/web"},
        "push_data": {"tag": "1.4", "pusher": "p" * 10_000},
    }
    reading = parse("dockerhub", json.dumps(body).encode())
    assert len(reading.pusher or "") == len(reading.callback_url or "") == 500


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = {
    "dockerhub": ["callback_url", "push_data", "repository", "tag", "pusher", "pushed_at", "repo_name", "name"],
    "distribution": ["events", "action", "target", "repository", "tag", "url", "request", "host", "actor", "name"],
    "generic": ["image", "images", "pusher"],
}
likely_texts = st.sampled_from(["push", "shop/web", "1.4", "a.b:5000", "https://a.b/v2/", "x@sha256:1", "", "/", ":"])


def likely(kind: str) -> st.SearchStrategy[Any]:
    """Give values made of the names that this kind of body really has."""
    names = st.sampled_from(FIELDS[kind])
    leaves = likely_texts | st.none() | st.integers() | st.floats()
    return st.recursive(
        leaves,
        lambda inner: st.dictionaries(names, inner, max_size=4) | st.lists(inner, max_size=2),
        max_leaves=10,
    )


def variations(body: bytes) -> Iterator[bytes]:
    """Give a body, and what is left of it when the connection breaks, and what comes of it when a byte does."""
    yield body
    for part in range(1, 7):
        place = len(body) * part // 7
        yield body[:place]
        yield body[:place] + b"\x00\xff[{}0"[part - 1 : part] + body[place + 1 :]


def all_are_read_or_malformed(kind: str, body: bytes) -> None:
    for variation in variations(body):
        reading = Reading(ignored="it is malformed")
        with suppress(Malformed):
            reading = parse(kind, variation)
        assert bool(reading.hints) is not bool(reading.ignored)


# 13 variations of each: 10,530 inputs.
fuzzed = settings(max_examples=90, suppress_health_check=[HealthCheck.too_slow], database=None)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", KINDS)
@fuzzed
@given(body=st.binary(max_size=60))
def test_any_bytes_are_read_or_malformed(kind: str, body: bytes):
    """Whatever bytes arrive, the parser gives a reading or says Malformed; nothing else is ever raised."""
    all_are_read_or_malformed(kind, body)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", KINDS)
@fuzzed
@given(body=json_values)
def test_any_json_is_read_or_malformed(kind: str, body: Any):
    """Whatever JSON arrives, the parser gives a reading or says Malformed."""
    all_are_read_or_malformed(kind, json.dumps(body).encode())


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", KINDS)
@fuzzed
@given(data=st.data())
def test_any_body_of_the_right_names_is_read_or_malformed(kind: str, data: st.DataObject):
    """A body with the sender's own field names, and anything in them, is read or Malformed."""
    all_are_read_or_malformed(kind, json.dumps(data.draw(likely(kind))).encode())
