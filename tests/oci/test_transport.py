"""Every way in which a registry fails, makes us wait, or sends us elsewhere."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from sidecar.core.image import Digest, ImageRef
from sidecar.errors import Refused, Transient
from sidecar.oci.headers import RateLimit
from sidecar.oci.transport import MOST_BYTES
from sidecar.registry import OciRegistry
from tests.oci.internet import (
    OCI_MANIFEST,
    Host,
    RegistryHost,
    TokenHost,
    hang,
    image,
    says,
    stop_in_the_middle,
)
from tests.oci.stage import SECRET, Stage

REF = ImageRef.parse("ghcr.io/acme/app:1")
PATH = "/v2/acme/app/manifests/1"
OTHER = Digest(f"sha256:{'e' * 64}")


def manifest(body: bytes, digest: str = "") -> Host:
    return says(body=body, headers={"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest})


def schema_1() -> Host:
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    return says(headers={"Content-Type": kind, "Docker-Content-Digest": OTHER})


@pytest.fixture
def host(stage: Stage) -> RegistryHost:
    return stage.host("ghcr.io")


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[OciRegistry]:
    async with stage.registry() as one:
        yield one


# Failures


@pytest.mark.parametrize(
    "answers, reason",
    [
        ([says(500)], "ghcr.io answered 500"),
        ([says(502)], "ghcr.io answered 502"),
        ([says(418)], "ghcr.io answered 418"),
        ([says(304)], "ghcr.io answered 304"),
        ([says(429)], "ghcr.io answered 429 (too many requests)"),
        ([says(503)], "ghcr.io answered 503 (unavailable)"),
        ([says(headers={"Docker-Content-Digest": "latest"})], "states a digest that is none: 'latest'"),
        ([says(405), says(500)], "ghcr.io answered 500"),
        ([says(405), stop_in_the_middle], "ghcr.io stopped in the middle"),
        ([says(405), says(body="<html>")], "content type 'text/plain'"),
        ([says(), says(body="<html>")], "content type 'text/plain'"),
        ([schema_1(), schema_1()], "content type 'application/vnd.docker.distribution.manifest.v1"),
        ([says(405), manifest(b"{}", OTHER)], f"body that is not the {OTHER}"),
        ([says(405), manifest(b" " * (MOST_BYTES + 1))], "more than 4194304 bytes"),
    ],
)
async def test_what_may_pass_is_transient(host, client, answers, reason):
    """Errors and nonsense are tried again later; the message says what, of whom and by whom."""
    host.instead = list(answers)
    with pytest.raises(Transient) as caught:
        await client.resolve(REF)
    assert str(caught.value).startswith("resolving ghcr.io/acme/app:1: ")
    assert "ghcr.io" in str(caught.value).partition(": ")[2]
    assert reason in str(caught.value)
    assert caught.value.retry_after_seconds is None


@pytest.mark.parametrize("answers", [[hang], [says(405), hang]])
async def test_silence_is_transient(stage, host, answers):
    """A host that takes the request and does not answer is given up on in time."""
    host.instead = list(answers)
    with pytest.raises(Transient, match=r"app:1: ghcr\.io (did not answer|took no connection) within"):
        await stage.registry(seconds=0.1).resolve(REF)


async def test_a_host_that_is_not_found_is_transient(stage, client):
    """A name that does not resolve may resolve later."""
    stage.net.missing.add("ghcr.io")
    with pytest.raises(Transient, match=r"resolving ghcr\.io/acme/app:1: ghcr\.io is not found"):
        await client.resolve(REF)


async def test_an_answer_that_is_not_http_is_transient(stage, client):
    """A port behind which something else listens."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        ref = ImageRef.parse(f"127.0.0.1:{port}/app:1")
        with pytest.raises(Transient, match=rf"127\.0\.0\.1:{port} answered with something that is not HTTP"):
            await client.resolve(ref)


async def test_the_total_bounds_the_whole_question(stage, host):
    """Answers that each take their time do not add up beyond it."""

    async def dawdle(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.06)
        return await says(307, headers={"Location": PATH + "0"})(request)

    host.instead = [dawdle] * 4
    with pytest.raises(Transient, match=r"ghcr\.io did not answer within 0\.1 seconds"):
        await stage.registry(seconds=0.1).resolve(REF)


# Waits and limits


@pytest.mark.parametrize("status", [429, 503])
async def test_a_host_that_asks_to_wait_is_left_alone(stage, host, client, status):
    """Until its time is over, questions to it fail at once and nothing is sent; others are asked."""
    digest = host.put("acme/app:1", image())
    stage.host("other.example").put("app:1", image())
    host.instead = [says(status, headers={"Retry-After": "60"})]
    with pytest.raises(Transient, match="asks us to wait 60 seconds") as caught:
        await client.resolve(REF)
    assert caught.value.retry_after_seconds == 60.0
    stage.clock.time += 45
    with pytest.raises(Transient, match=r"ghcr\.io asked not to be asked again for another 15 seconds") as caught:
        await client.resolve(REF.with_tag("2"))
    assert caught.value.retry_after_seconds == 15.0
    assert len(stage.net.of("ghcr.io")) == 1
    await client.resolve(ImageRef.parse("other.example/app:1"))
    stage.clock.time += 15
    assert (await client.resolve(REF)).digest == digest


async def test_a_wait_may_be_a_date(stage, host, client):
    """The date is compared with the answer's own, whatever our clock says."""
    fields = {"Retry-After": "Tue, 14 Nov 2023 22:14:20 GMT", "Date": "Tue, 14 Nov 2023 22:14:00 GMT"}
    host.instead = [says(429, headers=fields)]
    with pytest.raises(Transient) as caught:
        await client.resolve(REF)
    assert caught.value.retry_after_seconds == 20.0


async def test_without_a_time_to_wait_the_next_question_is_asked(host, client):
    """How long to wait then is the caller's business."""
    digest = host.put("acme/app:1", image())
    host.instead = [says(429)]
    with pytest.raises(Transient):
        await client.resolve(REF)
    assert (await client.resolve(REF)).digest == digest


async def test_docker_hubs_limits_are_kept(stage, client):
    """The last statement counts, by the registry's name in references; none left is no reason to stop a HEAD."""
    hub = stage.host("registry-1.docker.io")
    hub.put("library/nginx:latest", image())
    hub.headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "1;w=21600"}
    await client.resolve(ImageRef.parse("nginx"))
    hub.headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}
    await client.resolve(ImageRef.parse("nginx"))
    assert client.rate_limits == {"docker.io": RateLimit(limit=100, remaining=0, window_seconds=21600)}
    assert (await client.resolve(ImageRef.parse("nginx"))).digest


# Redirects


async def test_a_redirect_to_another_host_takes_no_credentials_along(stage, host, client):
    """A manifest may be elsewhere; who has it learns nothing of how we were let in."""
    stage.know("ghcr.io")
    host.challenge, host.accepted = "Basic realm=x", {stage.know("ghcr.io").basic()}
    host.instead = [says(401, headers={"WWW-Authenticate": "Basic realm=x"})]
    host.instead.append(says(307, headers={"Location": f"https://user:pw@other.example{PATH}?sig=1"}))
    digest = stage.host("other.example").put("acme/app:1", image())
    assert (await client.resolve(REF)).digest == digest
    assert [bool(asked.authorization) for asked in stage.net.asked] == [False, True, False]
    assert stage.net.of("other.example")[0].query == {"sig": "1"}


async def test_a_redirect_on_the_same_host_keeps_the_login(stage, host, client):
    """Another path of the registry itself is asked as the registry is."""
    digest = host.put("acme/app:1", image())
    login = stage.know("ghcr.io").basic()
    host.challenge, host.accepted = "Basic realm=x", {login}
    denied = says(401, headers={"WWW-Authenticate": host.challenge})
    host.instead = [denied, says(301, headers={"Location": PATH})]
    assert (await client.resolve(REF)).digest == digest
    assert [asked.authorization for asked in stage.net.asked] == ["", login, login]


async def test_a_registry_behind_a_redirect_is_logged_in_to_as_nobody(stage, host, client):
    """A front such as lscr.io sends to another registry, whose token is fetched anonymously."""
    stage.know("ghcr.io")
    stage.know("other.example")
    host.instead = [says(307, headers={"Location": f"https://other.example{PATH}"})]
    other = stage.host("other.example")
    digest = other.put("acme/app:1", image())
    other.challenge = 'Bearer realm="https://token.example/auth"'
    stage.net.hosts["token.example"] = TokenHost(other)
    assert (await client.resolve(REF)).digest == digest
    assert [asked.authorization for asked in stage.net.asked] == ["", "", "", "Bearer token-1"]
    assert not stage.looked_up


async def test_a_registry_behind_a_redirect_that_wants_a_password_is_a_refusal(stage, host, client):
    """Nobody's credentials are tried at a host that only another named."""
    stage.know("ghcr.io")
    host.instead = [says(307, headers={"Location": f"https://other.example{PATH}"})]
    stage.host("other.example").challenge = "Basic realm=x"
    with pytest.raises(Refused, match=r"other\.example, to which we were redirected, does not let us in \(401\)"):
        await client.resolve(REF)
    assert SECRET not in str(stage.net.asked)


@pytest.mark.parametrize(
    "location, reason",
    [
        (f"http://ghcr.io{PATH}", r"redirects from https to http \(host ghcr\.io\), which is not followed"),
        (f"http://127.0.0.1{PATH}", r"redirects from https to http \(host 127\.0\.0\.1\)"),
        ("ftp://ghcr.io/", "307 and not where to go instead"),
        ("", "307 and not where to go instead"),
        ("https://[x", "307 and not where to go instead"),
    ],
)
async def test_a_redirect_out_of_tls_or_to_nowhere_is_not_followed(stage, host, client, location, reason):
    """What was asked under TLS is not answered without it."""
    host.instead = [says(307, headers={"Location": location})]
    with pytest.raises(Transient, match=reason):
        await client.resolve(REF)
    assert len(stage.net.asked) == 1


async def test_a_chain_of_redirects_ends(stage, host, client):
    """Three are followed, a fourth is not."""
    digest = host.put("acme/app:1", image())

    def onwards() -> Host:
        return says(302, headers={"Location": f"{PATH}?again={len(host.instead)}"})

    host.instead = [onwards() for _ in range(3)]
    assert (await client.resolve(REF)).digest == digest
    host.instead = [onwards() for _ in range(4)]
    with pytest.raises(Transient, match=r"ghcr\.io redirects more than 3 times"):
        await client.resolve(REF)
