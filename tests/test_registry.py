"""What a reference means now: resolving, identities, and every way in which a registry fails."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from sidecar.core.decide import Resolved
from sidecar.core.image import Digest, ImageRef
from sidecar.errors import Refused, Transient
from sidecar.oci.headers import RateLimit
from sidecar.oci.transport import MOST_BYTES
from sidecar.registry import OciRegistry
from tests.oci.internet import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Authority,
    Host,
    RegistryHost,
    TokenHost,
    hang,
    image,
    index,
    make_authority,
    says,
    stop_in_the_middle,
)
from tests.oci.stage import SECRET, Stage, staged

REF = ImageRef.parse("ghcr.io/acme/app:1")
PATH = "/v2/acme/app/manifests/1"
OTHER = Digest(f"sha256:{'e' * 64}")


def manifest(body: bytes, digest: str = "") -> Host:
    return says(body=body, headers={"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest})


def schema_1() -> Host:
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    return says(headers={"Content-Type": kind, "Docker-Content-Digest": OTHER})


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def stage(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    authority.replace_the_systems(monkeypatch)
    async with staged(authority) as one:
        yield one


@pytest.fixture
def host(stage: Stage) -> RegistryHost:
    return stage.host("ghcr.io")


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[OciRegistry]:
    async with stage.registry() as one:
        yield one


# Resolving


@pytest.mark.parametrize("media_type", [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST])
async def test_a_tag_is_resolved_by_one_head(stage, host, client, media_type):
    """A HEAD, which counts as no pull, that takes each of the four kinds; its header says the digest."""
    digest = host.put("acme/app:1", image(), media_type)
    assert await client.resolve(REF) == Resolved.of(digest)
    (asked,) = stage.net.asked
    assert asked.line == f"HEAD https://ghcr.io{PATH}"
    assert set(asked.headers["Accept"].split(", ")) == {OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST}
    assert asked.headers["User-Agent"].startswith("sidecar/")


async def test_docker_hub_answers_under_its_own_name(stage, client):
    """`nginx` is library/nginx at registry-1.docker.io, with its tag `latest`."""
    digest = stage.host("registry-1.docker.io").put("library/nginx:latest", image())
    assert (await client.resolve(ImageRef.parse("nginx"))).digest == digest
    assert stage.net.lines == ["HEAD https://registry-1.docker.io/v2/library/nginx/manifests/latest"]


async def test_a_digest_means_itself(stage, client):
    """What is pinned is not asked for."""
    assert await client.resolve(ImageRef.parse(f"ghcr.io/acme/app:1@{OTHER}")) == Resolved.of(OTHER)
    assert not stage.net.asked


async def test_an_answer_is_not_kept(stage, host, client):
    """A tag may have moved: each question is asked."""
    first = host.put("acme/app:1", image("a"))
    assert (await client.resolve(REF)).digest == first
    second = host.put("acme/app:1", image("b"))
    assert (await client.resolve(REF)).digest == second
    assert len(stage.net.asked) == 2


@pytest.mark.parametrize("status", [400, 404, 405, 501])
async def test_a_registry_without_head_is_asked_by_get(stage, host, client, status):
    """Where HEAD is refused, or answered as only Nexus does, the body is fetched and its digest computed."""
    digest = host.put("acme/app:1", image())
    host.refuses_head = status
    host.has_digests = False
    assert (await client.resolve(REF)).digest == digest
    assert stage.net.lines == [f"HEAD https://ghcr.io{PATH}", f"GET https://ghcr.io{PATH}"]


async def test_a_head_without_a_digest_is_followed_by_get(stage, host, client):
    """The digest's header is optional; the body always has one."""
    digest = host.put("acme/app:1", image())
    host.has_digests = False
    assert (await client.resolve(REF)).digest == digest
    assert [asked.method for asked in stage.net.asked] == ["HEAD", "GET"]


async def test_a_stated_digest_of_another_algorithm_is_compared_by_it(host, client):
    """A registry may name a body by sha512; that name is kept if it is true."""
    host.put("acme/app:1", image())
    host.refuses_head = 405
    body = host.manifests[PATH][1]
    digest = f"sha512:{hashlib.sha512(body).hexdigest()}"
    host.has_digests, host.headers = False, {"Docker-Content-Digest": digest}
    assert (await client.resolve(REF)).digest == digest


async def test_a_missing_tag_of_docker_hub_costs_no_get(stage, client):
    """Docker Hub counts a GET as a pull, and its HEAD can be believed."""
    stage.host("registry-1.docker.io")
    with pytest.raises(
        Refused, match=r"registry registry-1\.docker\.io does not know docker\.io/library/nginx:9 \(404\)"
    ):
        await client.resolve(ImageRef.parse("nginx:9"))
    assert len(stage.net.asked) == 1


async def test_an_unknown_tag_is_refused(host, client):
    """What a registry does not know is no failure that passes."""
    with pytest.raises(Refused) as caught:
        await client.resolve(REF)
    assert str(caught.value) == (
        "resolving ghcr.io/acme/app:1: registry ghcr.io does not know ghcr.io/acme/app:1 (404)"
    )


# Sharing


async def test_equal_questions_share_one_request(stage, host, client):
    """Ten targets of one image that ask at once cost one HEAD; another tag is another question."""
    host.put("acme/app:1", image())
    host.put("acme/app:2", image("b"))
    await asyncio.gather(*(client.resolve(REF) for _ in range(10)), client.resolve(REF.with_tag("2")))
    assert sorted(stage.net.lines) == [f"HEAD https://ghcr.io{PATH}", "HEAD https://ghcr.io/v2/acme/app/manifests/2"]


async def test_the_first_asker_may_leave(stage, host, client):
    """Cancelling who asked first takes the answer from nobody else."""
    digest, arrived, go_on = host.put("acme/app:1", image()), asyncio.Event(), asyncio.Event()

    async def wait(_: web.Request) -> web.StreamResponse:
        arrived.set()
        await go_on.wait()
        return web.Response(headers={"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest})

    host.instead = [wait]
    first, second = [asyncio.create_task(client.resolve(REF)) for _ in range(2)]
    await arrived.wait()
    first.cancel()
    go_on.set()
    assert (await second).digest == digest
    assert len(stage.net.asked) == 1


async def test_a_push_during_a_question_is_not_missed(stage, host, client):
    """Who asks when a question is already on its way gets an answer from after that, not the one that may be older."""
    before, arrived, go_on = host.put("acme/app:1", image("a")), asyncio.Event(), asyncio.Event()

    async def answer_late(_: web.Request) -> web.StreamResponse:
        arrived.set()
        await go_on.wait()
        return web.Response(headers={"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": before})

    host.instead = [answer_late]
    early = asyncio.create_task(client.resolve(REF))
    await arrived.wait()
    after = host.put("acme/app:1", image("b"))
    late = [asyncio.create_task(client.resolve(REF)) for _ in range(3)]
    await asyncio.sleep(0)
    go_on.set()
    assert (await early).digest == before
    assert {(await one).digest for one in late} == {after}
    assert len(stage.net.asked) == 2


async def test_each_asker_has_an_error_of_its_own(host, client):
    """A shared failure is told to each in an exception of its own: tracebacks do not pile up on one."""
    outcomes = await asyncio.gather(client.resolve(REF), client.resolve(REF), return_exceptions=True)
    assert all(isinstance(outcome, Refused) for outcome in outcomes)
    assert outcomes[0] is not outcomes[1]


# Identities


async def test_a_plain_manifest_is_known_by_two_names(host, client):
    """Its own digest, and its configuration's, which Docker calls the image's id."""
    digest = host.put("acme/app:1", image("c"))
    assert await client.identities(REF, digest, platform="linux/amd64") == {digest, f"sha256:{'c' * 64}"}


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
async def test_an_index_is_known_by_its_platforms_manifest_too(stage, host, client, media_type):
    """The index, the platform's manifest and its configuration; nothing of other platforms or of attestations."""
    amd = host.put("acme/app:amd", image("a"))
    arm = host.put("acme/app:arm", image("b"))
    attestation = host.put("acme/app:att", image("d"))
    entries = [("linux/amd64", amd), ("linux/arm64", arm), ("unknown/unknown", attestation)]
    digest = host.put("acme/app:1", index(*entries), media_type)
    assert await client.identities(REF, digest, platform="linux/arm64/v8") == {digest, arm, f"sha256:{'b' * 64}"}
    assert stage.net.lines == [f"GET https://ghcr.io/v2/acme/app/manifests/{one}" for one in (digest, arm)]


async def test_what_an_index_lacks_adds_nothing(host, client):
    """Without a manifest for the platform only the digest is known; whether that can run the engine knows."""
    digest = host.put("acme/app:1", index(("linux/amd64", OTHER)), OCI_INDEX)
    assert await client.identities(REF, digest, platform="linux/s390x") == {digest}


async def test_an_index_in_an_index_is_followed_a_little(host, client):
    """Nesting is allowed and rare; endless nesting costs four requests."""
    manifest = host.put("acme/app:m", image("a"))
    inner = host.put("acme/app:i", index(("linux/amd64", manifest)), OCI_INDEX)
    outer = host.put("acme/app:o", index(("linux/amd64", inner)), OCI_INDEX)
    config = f"sha256:{'a' * 64}"
    assert await client.identities(REF, outer, platform="linux/amd64") == {outer, inner, manifest, config}
    for depth in range(4):
        outer = host.put(f"acme/app:{depth}", index(("linux/amd64", outer)), OCI_INDEX)
    assert config not in await client.identities(REF, outer, platform="linux/amd64")


async def test_content_is_read_once(stage, host, client):
    """A digest's content never changes: asked for again and at once, for any platform, it is fetched once."""
    amd, arm = host.put("acme/app:amd", image("a")), host.put("acme/app:arm", image("b"))
    digest = host.put("acme/app:1", index(("linux/amd64", amd), ("linux/arm64", arm)), OCI_INDEX)
    await asyncio.gather(*(client.identities(REF, digest, platform="linux/amd64") for _ in range(5)))
    assert len(stage.net.asked) == 2
    await client.identities(REF, digest, platform="linux/amd64")
    await client.identities(REF, digest, platform="linux/arm64")
    assert len(stage.net.asked) == 3


async def test_a_body_that_is_not_its_digest_is_not_believed(host, client):
    """Content is checked against its digest, and what is wrong is not kept."""
    digest = host.put("acme/app:1", image())
    good = host.manifests[f"/v2/acme/app/manifests/{digest}"]
    host.instead = [says(body=good[1] + b" ", headers={"Content-Type": OCI_MANIFEST})]
    with pytest.raises(Transient, match=rf"reading ghcr\.io/acme/app@{digest}: ghcr\.io answered .* not {digest}"):
        await client.identities(REF, digest, platform="linux/amd64")
    assert digest in await client.identities(REF, digest, platform="linux/amd64")


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"manifests": [], "config": {}}', b"[" * 10_000])
async def test_content_that_is_no_manifest_is_transient(host, client, body):
    """The digest is right and the content is not what the content type says."""
    digest = host.put("acme/app:1", body)
    with pytest.raises(Transient, match=r"ghcr\.io answered with a body that is (not JSON|neither)"):
        await client.identities(REF, digest, platform="linux/amd64")


async def test_an_unknown_digest_is_refused(host, client):
    """A registry that has deleted it says so."""
    with pytest.raises(Refused, match=rf"registry ghcr\.io does not know ghcr\.io/acme/app@{OTHER} \(404\)"):
        await client.identities(REF, OTHER, platform="linux/amd64")


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


# Life


async def test_closing_ends_what_is_under_way(stage, host):
    """No task and no session of its own outlives it."""
    arrived = asyncio.Event()

    async def arrive(request: web.Request) -> web.StreamResponse:
        arrived.set()
        return await hang(request)

    host.instead = [arrive]
    client = OciRegistry(clock=stage.clock, credentials=stage.find_credential)
    async with stage.net.server() as port:
        stage.net.hosts[f"127.0.0.1:{port}"] = host
        question = asyncio.create_task(client.resolve(ImageRef.parse(f"127.0.0.1:{port}/app:1")))
        await arrived.wait()
        await client.close()
        await client.close()
        assert isinstance((await asyncio.gather(question, return_exceptions=True))[0], asyncio.CancelledError)


async def test_a_session_that_was_given_is_left_open(stage, host, client):
    """Whoever made it closes it."""
    await client.close()
    assert not stage.session.closed
