"""Not being let in: what is said, what is not sent, and that no message holds a secret."""

import traceback

import pytest
from aiohttp import web

from sidecar.core.image import ImageRef
from sidecar.errors import Refused, SidecarError, Transient
from tests.oci.internet import TokenHost, hang, says, says_json
from tests.oci.stage import BASIC, SECRET, denied

REF = ImageRef.parse("ghcr.io/acme/app:1")


async def test_missing_credentials_are_asked_for(stage, guarded):
    """Who is not let in without credentials is told how to give them."""
    guarded.tokens.logins = {BASIC}
    with pytest.raises(Refused) as caught:
        await stage.registry().resolve(REF)
    assert str(caught.value) == (
        "resolving ghcr.io/acme/app:1: the token server token.example of ghcr.io "
        "does not let us in without credentials (401), or the repository does not exist; "
        "give them by `docker login ghcr.io` in the config.json that SIDECAR_REGISTRY_CREDENTIALS names"
    )


async def test_docker_hub_is_asked_for_by_its_own_names(stage):
    """Docker Hub answers under another name than references have; its credentials are those of docker.io."""
    registry = stage.host("registry-1.docker.io")
    registry.challenge = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
    stage.net.hosts["auth.docker.io"] = TokenHost(registry, logins={BASIC})
    with pytest.raises(Refused, match=r"SIDECAR_REGISTRY_USERNAME and SIDECAR_REGISTRY_PASSWORD"):
        await stage.registry().resolve(ImageRef.configured("nginx"))
    assert stage.looked_up == ["docker.io"]


@pytest.mark.parametrize("status", [401, 403])
async def test_wrong_credentials_are_said_to_be_wrong(stage, guarded, status):
    """Credentials that are refused are named by their registry, and never shown."""
    stage.know("ghcr.io")
    guarded.tokens.instead = [says(status)]
    with pytest.raises(Refused, match=rf"refuses the credentials for ghcr\.io \({status}\).*docker login ghcr\.io"):
        await stage.registry().resolve(REF)


async def test_a_403_with_a_token_is_a_refusal(stage, guarded):
    """A registry that knows us and does not let us see the repository is believed at once."""
    stage.know("ghcr.io")
    guarded.registry.instead = [denied(), says(403)]
    with pytest.raises(Refused, match=r"ghcr\.io refuses the credentials for ghcr\.io \(403\)"):
        await stage.registry().resolve(REF)


async def test_a_refusal_is_not_kept(stage, guarded):
    """Whoever corrects the credentials does not wait for the token that was refused to expire."""
    stage.know("ghcr.io", username="powerless")
    guarded.registry.instead = [denied(), says(403)]
    client = stage.registry()
    with pytest.raises(Refused):
        await client.resolve(REF)
    stage.know("ghcr.io")
    guarded.tokens.logins = {BASIC}
    assert (await client.resolve(REF)).digest == guarded.digest
    assert [asked.authorization for asked in stage.net.of("ghcr.io")] == ["", "Bearer token-1", "", "Bearer token-2"]


async def test_an_expired_identity_token_is_a_refusal(stage, guarded):
    """OAuth 2 says so by a 400."""
    stage.know("ghcr.io", identity_token="old")
    guarded.tokens.instead = [says_json({"error": "invalid_grant"}, status=400)]
    with pytest.raises(Refused, match=r"refuses the credentials for ghcr\.io \(400\)"):
        await stage.registry().resolve(REF)


@pytest.mark.parametrize("identity_token", ["", "one"])
async def test_basic_without_a_password_is_a_refusal(stage, identity_token):
    """A registry that wants a password gets neither nothing nor an identity token."""
    stage.host("ghcr.io").challenge = "Basic realm=x"
    if identity_token:
        stage.know("ghcr.io", identity_token=identity_token)
    with pytest.raises(Refused, match=r"docker login ghcr\.io"):
        await stage.registry().resolve(REF)
    assert len(stage.net.asked) == 1


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Bearer service=x"])
async def test_a_login_of_an_unknown_kind_is_a_refusal(stage, challenge):
    """A 401 that offers neither token nor password cannot be answered."""
    stage.host("ghcr.io").instead = [says(401, headers={"WWW-Authenticate": challenge})]
    with pytest.raises(Refused, match=r"ghcr\.io asks for a login \(401\) of a kind that is not known"):
        await stage.registry().resolve(REF)


@pytest.mark.parametrize("problem", [Refused("no helper"), Transient("helper hangs")])
async def test_unreadable_credentials_do_not_stop_a_public_image(stage, guarded, problem):
    """Most images need none, and Docker goes on without as well; where that fails the reason is told, in its kind."""
    stage.credentials["ghcr.io"] = problem
    client = stage.registry()
    assert (await client.resolve(REF)).digest == guarded.digest
    with pytest.raises(Refused, match=f"does not know ghcr.io/acme/app:9 .404.; asked without credentials.*{problem}"):
        await client.resolve(REF.with_tag("9"))
    guarded.tokens.logins = {BASIC}
    with pytest.raises(type(problem), match=f"those configured cannot be read: {problem}"):
        await stage.registry().resolve(REF)


@pytest.mark.parametrize(
    "answer, reason",
    [
        (says(500), "token.example answered 500"),
        (says(404), "token.example answered 404"),
        (says(302, headers={"Location": "https://ghcr.io/"}), "answered 302"),
        (says(body="<html>"), "answered without a token"),
        (says_json([]), "answered without a token"),
        (says_json({}), "answered without a token"),
        (says_json({"token": ""}), "answered without a token"),
        (says_json({"token": 7}), "answered without a token"),
        (says_json({"token": "a\r\nX-Evil: 1"}), "answered without a token"),
        (says(429, headers={"Retry-After": "7"}), "asks us to wait 7 seconds"),
    ],
)
async def test_a_token_server_in_trouble_may_work_later(stage, guarded, answer, reason):
    """Its errors, nonsense and silence are transient, and say which server it is."""
    guarded.tokens.instead = [answer]
    with pytest.raises(Transient, match=reason):
        await stage.registry().resolve(REF)


async def test_a_silent_token_server_is_given_up_on(stage, guarded):
    """The time of a question includes the login."""
    guarded.tokens.instead = [hang]
    with pytest.raises(Transient, match=r"within 0\.1 seconds"):
        await stage.registry(seconds=0.1).resolve(REF)


async def test_a_busy_token_server_is_left_alone(stage, guarded):
    """While it asked to wait, logins that need it fail at once, and its registry may be asked."""
    guarded.tokens.instead = [says(503, headers={"Retry-After": "7"})]
    client = stage.registry()
    for _ in range(2):
        with pytest.raises(Transient) as caught:
            await client.resolve(REF)
        assert caught.value.retry_after_seconds == 7.0
    assert len(stage.net.of("token.example")) == 1
    stage.clock.time += 7
    assert (await client.resolve(REF)).digest == guarded.digest


@pytest.mark.parametrize(
    "realm, kind",
    [
        ("http://token.example/auth", Refused),
        ("http://ghcr.io/auth", Refused),
        ("ftp://token.example/auth", Transient),
        ("/auth", Transient),
        ("https://", Transient),
        ("https://[x", Transient),
    ],
)
@pytest.mark.parametrize("has_credentials", [True, False])
async def test_a_registry_behind_tls_has_its_token_server_there_too(stage, guarded, realm, kind, has_credentials):
    """A realm in plain HTTP, or that is no address, is asked nothing, with and without credentials."""
    if has_credentials:
        stage.know("ghcr.io")
    guarded.registry.challenge = f'Bearer realm="{realm}"'
    with pytest.raises(kind, match=r"resolving ghcr\.io/acme/app:1: ghcr\.io names"):
        await stage.registry().resolve(REF)
    assert len(stage.net.asked) == 1


async def test_a_user_in_the_realm_is_ignored(stage, guarded):
    """An address cannot say who we are."""
    guarded.registry.challenge = 'Bearer realm="https://root:toor@token.example/auth"'
    await stage.registry().resolve(REF)
    (asked,) = stage.net.of("token.example")
    assert not asked.authorization


SECRETS = (SECRET, BASIC.removeprefix("Basic "), "token-1", "refresh me")


@pytest.mark.parametrize(
    "break_it",
    [
        lambda guarded: guarded.tokens.instead.append(says(401)),
        lambda guarded: guarded.tokens.instead.append(says(500)),
        lambda guarded: guarded.tokens.instead.append(says(429)),
        lambda guarded: guarded.tokens.instead.append(says(body=f"{SECRET} token-1")),
        lambda guarded: guarded.tokens.instead.append(hang),
        lambda guarded: guarded.registry.instead.extend([denied(), denied()]),
        lambda guarded: guarded.registry.instead.extend([denied(), says(403)]),
        lambda guarded: guarded.registry.instead.extend([denied(), says(404), says(404)]),
        lambda guarded: guarded.registry.instead.extend([denied(), says(500)]),
        lambda guarded: guarded.registry.instead.extend([denied(), hang]),
        lambda guarded: guarded.registry.instead.extend([denied(), _cut, _cut]),
        lambda guarded: guarded.registry.instead.extend([denied(), _babble]),
        lambda guarded: guarded.tokens.instead.append(_babble),
        lambda guarded: setattr(guarded.registry, "challenge", 'Bearer realm="http://token.example/"'),
    ],
)
@pytest.mark.parametrize("identity_token", ["", "refresh me"])
async def test_no_secret_is_in_any_message(stage, guarded, break_it, identity_token):
    """Whatever fails with credentials in use, neither the error nor its traceback holds one, and both name the host."""
    stage.know("ghcr.io", identity_token=identity_token)
    guarded.tokens.logins, guarded.tokens.refresh_tokens = {BASIC}, {"refresh me"}
    break_it(guarded)
    with pytest.raises(SidecarError, match=r"resolving ghcr\.io/acme/app:1: .*(ghcr\.io|token\.example)") as caught:
        await stage.registry(seconds=0.1).resolve(REF)
    told = "".join(traceback.format_exception(caught.value))
    error: BaseException | None = caught.value
    while error is not None:  # what a log that prints causes would show
        told += repr(error)
        error = error.__cause__
    assert not [secret for secret in SECRETS if secret in told]


async def _babble(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"SSH-2.0\r\n\r\n")
    request.transport.close()
    return web.Response()


async def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
