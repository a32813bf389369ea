"""Being let in: the token dance and Basic logins."""

import asyncio

import pytest
from aiohttp import web

from sidecar.core.image import ImageRef
from sidecar.errors import Refused
from tests.oci.internet import image, says
from tests.oci.stage import BASIC, denied

REF = ImageRef.parse("ghcr.io/acme/app:1")


async def test_a_public_image_is_seen_by_an_anonymous_token(stage, guarded):
    """401, a token for nobody, and the same request again; the realm keeps its own query."""
    assert (await stage.registry().resolve(REF)).digest == guarded.digest
    assert stage.net.lines == [
        "HEAD https://ghcr.io/v2/acme/app/manifests/1",
        "GET https://token.example/auth",
        "HEAD https://ghcr.io/v2/acme/app/manifests/1",
    ]
    (asked,) = stage.net.of("token.example")
    assert dict(asked.query) == {"x": "1", "service": "ghcr.io", "scope": "repository:acme/app:pull"}
    assert not asked.authorization


async def test_a_password_goes_to_the_token_server_and_the_token_to_the_registry(stage, guarded):
    """The registry of a bearer challenge never sees the password."""
    stage.know("ghcr.io")
    guarded.tokens.logins = {BASIC}
    assert (await stage.registry().resolve(REF)).digest == guarded.digest
    (asked,) = stage.net.of("token.example")
    assert asked.authorization == BASIC
    assert asked.query["account"] == "user"
    assert [one.authorization for one in stage.net.of("ghcr.io")] == ["", "Bearer token-1"]


async def test_an_identity_token_is_posted(stage, guarded):
    """A refresh token buys an access token by OAuth 2, in the body and not in the address."""
    stage.know("ghcr.io", identity_token="refresh me")
    guarded.tokens.refresh_tokens = {"refresh me"}
    assert (await stage.registry().resolve(REF)).digest == guarded.digest
    (asked,) = stage.net.of("token.example")
    assert asked.line == "POST https://token.example/auth"
    assert asked.body == (
        "grant_type=refresh_token&client_id=sidecar&scope=repository%3Aacme%2Fapp%3Apull"
        "&service=ghcr.io&refresh_token=refresh+me"
    )


async def test_several_scopes_are_several_parameters(stage, guarded):
    """Scopes in one string are asked for one by one, as Docker does."""
    guarded.registry.challenge = 'Bearer realm="https://token.example/",scope="repository:a:pull repository:b:pull"'
    await stage.registry().resolve(REF)
    (asked,) = stage.net.of("token.example")
    assert asked.query.getall("scope") == ["repository:a:pull", "repository:b:pull"]
    assert "service" not in asked.query


async def test_a_challenge_without_a_scope_asks_to_pull(stage, guarded):
    """Where the registry names no scope it is the repository's, to pull and no more."""
    guarded.registry.challenge = 'Bearer realm="https://token.example/"'
    await stage.registry().resolve(REF)
    (asked,) = stage.net.of("token.example")
    assert asked.query["scope"] == "repository:acme/app:pull"


async def test_a_basic_challenge_is_answered_with_the_password(stage):
    """Registries with htpasswd get the password itself, and again without a challenge the next time."""
    registry = stage.host("ghcr.io")
    registry.challenge, registry.accepted = 'Basic realm="Registry"', {BASIC}
    digest = registry.put("acme/app:1", image())
    stage.know("ghcr.io")
    client = stage.registry()
    assert [(await client.resolve(REF)).digest for _ in range(2)] == [digest, digest]
    assert [asked.authorization for asked in stage.net.asked] == ["", BASIC, BASIC]


async def test_a_token_is_used_until_it_expires(stage, guarded):
    """One token serves a repository for its lifetime less a slack; then it is renewed without being refused first."""
    guarded.tokens.fields = {"expires_in": 300}
    client = stage.registry()
    await client.resolve(REF)
    stage.clock.time += 289
    await client.resolve(REF)
    assert guarded.tokens.issued == 1
    stage.clock.time += 2
    await client.resolve(REF)
    assert [asked.authorization for asked in stage.net.of("ghcr.io")] == [
        "",
        "Bearer token-1",
        "Bearer token-1",
        "Bearer token-2",
    ]


@pytest.mark.parametrize("stated", ["1" + "0" * 400, "Infinity"])
async def test_no_token_is_good_for_more_than_a_day(stage, guarded, stated):
    """A lifetime without measure is bounded."""
    answer = f'{{"token": "token-0", "expires_in": {stated}}}'
    guarded.registry.accepted = {"Bearer token-0"}
    guarded.tokens.instead = [says(body=answer)]
    client = stage.registry()
    await client.resolve(REF)
    stage.clock.time += 86400
    await client.resolve(REF)
    assert guarded.tokens.issued == 1


@pytest.mark.parametrize("stated", [{}, {"expires_in": None}, {"expires_in": -5}, {"expires_in": "soon"}])
async def test_a_token_without_a_lifetime_is_good_for_a_minute(stage, guarded, stated):
    """The token specification's default, less the slack; what is no positive number is none."""
    guarded.tokens.fields = stated
    client = stage.registry()
    await client.resolve(REF)
    stage.clock.time += 49
    await client.resolve(REF)
    assert guarded.tokens.issued == 1
    stage.clock.time += 2
    await client.resolve(REF)
    assert guarded.tokens.issued == 2


async def test_a_token_rejected_in_the_middle_is_fetched_anew(stage, guarded):
    """A token that the registry does not take any more is replaced once, by the new challenge."""
    client = stage.registry()
    await client.resolve(REF)
    guarded.registry.accepted.clear()
    assert (await client.resolve(REF)).digest == guarded.digest
    assert guarded.tokens.issued == 2


async def test_a_token_rejected_twice_at_once_is_fetched_once(stage, guarded):
    """Who is told late that the old token is no good finds the new one there."""
    guarded.registry.put("acme/app:2", image("b"))
    client = stage.registry()
    await client.resolve(REF)
    renewed = asyncio.Event()

    async def deny_late(request: web.Request) -> web.StreamResponse:
        await renewed.wait()
        return await denied()(request)

    guarded.registry.instead = [deny_late]
    late = asyncio.create_task(client.resolve(REF.with_tag("2")))
    while guarded.registry.instead:  # noqa: ASYNC110 - what is waited for is a request's arrival
        await asyncio.sleep(0)
    guarded.registry.accepted.clear()
    await client.resolve(REF)
    renewed.set()
    await late
    assert guarded.tokens.issued == 2


async def test_a_new_token_that_is_rejected_too_is_a_refusal(stage, guarded):
    """Twice is no accident: it says so, and the next question starts from the beginning."""
    client = stage.registry()
    guarded.registry.instead = [denied(), denied()]
    with pytest.raises(
        Refused, match=r"resolving ghcr\.io/acme/app:1: ghcr\.io does not let us in without credentials"
    ):
        await client.resolve(REF)
    assert len(stage.net.of("ghcr.io")) == 2
    assert (await client.resolve(REF)).digest == guarded.digest


async def test_a_repository_has_its_own_token(stage, guarded):
    """Tokens are kept by repository: another one asks for its own."""
    guarded.registry.put("acme/other:1", image("b"))
    client = stage.registry()
    await client.resolve(REF)
    await client.resolve(ImageRef.parse("ghcr.io/acme/other:1"))
    assert [asked.authorization for asked in stage.net.of("ghcr.io")] == ["", "Bearer token-1", "", "Bearer token-2"]


async def test_questions_of_one_repository_share_a_login(stage, guarded):
    """Two tags asked for at once fetch one token."""
    guarded.registry.put("acme/app:2", image("b"))
    client = stage.registry()
    await asyncio.gather(client.resolve(REF), client.resolve(REF.with_tag("2")))
    assert guarded.tokens.issued == 1


async def test_a_changed_password_is_found_at_the_next_refusal(stage, guarded):
    """Credentials are looked up at each login, so a corrected one needs no restart."""
    stage.know("ghcr.io", username="stale")
    guarded.tokens.logins = {BASIC}
    client = stage.registry()
    with pytest.raises(Refused):
        await client.resolve(REF)
    stage.know("ghcr.io")
    assert (await client.resolve(REF)).digest == guarded.digest
