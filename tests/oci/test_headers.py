"""Header fields, read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.oci.headers import (
    LONGEST_WAIT_SECONDS,
    RateLimit,
    choose_challenge,
    read_challenges,
    read_rate_limit,
    read_retry_after,
)

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
HUB = (
    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
    'scope="repository:library/nginx:pull",error="invalid_token"'
)


@pytest.mark.parametrize(
    "field, expected",
    [
        (
            HUB,
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:library/nginx:pull",
                        "error": "invalid_token",
                    },
                )
            ],
        ),
        (
            'Bearer realm="https://a/t",scope="repository:a:pull,push repository:b:pull"',
            [("bearer", {"realm": "https://a/t", "scope": "repository:a:pull,push repository:b:pull"})],
        ),
        (r'BEARER Realm = "say \"hi\", you" , service=x', [("bearer", {"realm": 'say "hi", you', "service": "x"})]),
        ("Bearer realm=https://a/t,service=plain", [("bearer", {"realm": "https://a/t", "service": "plain"})]),
        ('Basic realm="one", Bearer realm="two"', [("basic", {"realm": "one"}), ("bearer", {"realm": "two"})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Basic realm=""', [("basic", {"realm": ""})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        ("Basic", [("basic", {})]),
        ("", []),
        (", ,", []),
        ('"quoted" Bearer realm=x', []),
    ],
)
def test_a_challenge_is_read_as_rfc_9110_writes_it(field, expected):
    """Quoted strings keep their commas, names are case-blind, the first of a repeated parameter counts."""
    read = [(challenge.scheme, dict(challenge.parameters)) for challenge in read_challenges([field])]
    assert read == expected


@given(st.text(alphabet='=",; \\\tBearer:GMTNov0123\x00\xff', max_size=80))
def test_no_field_upsets_the_reader(field):
    """Whatever a host sends, reading its challenges and waits raises nothing."""
    read_challenges([field])
    read_retry_after({"Retry-After": field, "Date": field}, now=NOW)
    read_rate_limit({"RateLimit-Limit": field, "RateLimit-Remaining": field})


@pytest.mark.parametrize(
    "fields, scheme",
    [
        (["Basic realm=x", HUB], "bearer"),
        ([HUB], "bearer"),
        (["Basic realm=x"], "basic"),
        (["Bearer service=x", "Basic realm=x"], "basic"),
        (["Bearer service=x"], None),
        (["Negotiate"], None),
        ([], None),
    ],
)
def test_a_token_is_preferred_where_there_is_a_server_for_it(fields, scheme):
    """A bearer challenge without a realm cannot be answered; a basic one comes second."""
    chosen = choose_challenge(read_challenges(fields))
    assert (chosen.scheme if chosen else None) == scheme


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({"Retry-After": "30"}, 30.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({"Retry-After": "99999999999999999999"}, LONGEST_WAIT_SECONDS),
        ({"Retry-After": "Tue, 14 Nov 2023 22:14:20 GMT"}, 60.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:14:20 GMT", "Date": "Tue, 14 Nov 2023 22:14:00 GMT"}, 20.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:14:20 GMT", "Date": "today"}, 60.0),
        ({"Retry-After": "Mon, 13 Nov 2023 22:14:20 GMT"}, 0.0),
        ({"Retry-After": "Wed, 14 Nov 2035 22:14:20 GMT"}, LONGEST_WAIT_SECONDS),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_a_wait_is_seconds_or_a_date(headers, seconds):
    """A date is compared with the answer's own; six hours is the most; what cannot be read is no wait."""
    assert read_retry_after(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    "limit, remaining, expected",
    [
        ("100;w=21600", "97;w=21600", RateLimit(limit=100, remaining=97, window_seconds=21600)),
        ("100", "0;w=60", RateLimit(limit=100, remaining=0, window_seconds=60)),
        (" 200 ; w = 60", "5", RateLimit(limit=200, remaining=5, window_seconds=60)),
        ("200", "5", RateLimit(limit=200, remaining=5, window_seconds=0)),
        ("100;w=21600", "", None),
        ("", "97", None),
        ("many", "97", None),
    ],
)
def test_docker_hubs_limit_is_read(limit, remaining, expected):
    """Limit and rest are needed, the window may stand with either."""
    assert read_rate_limit({"RateLimit-Limit": limit, "RateLimit-Remaining": remaining}) == expected
