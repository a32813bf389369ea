"""What a reference means now: resolving, sharing questions, identities; tests/oci has what can go wrong on the wire."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from sidecar.core.decision import Resolved
from sidecar.core.image import Digest, ImageRef
from sidecar.errors import Refused, Transient
from sidecar.registry import OciRegistry
from tests.oci.internet import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Authority,
    RegistryHost,
    hang,
    image,
    index,
    make_authority,
    says,
)
from tests.oci.stage import Stage, staged

REF = ImageRef.parse("ghcr.io/acme/app:1")
PATH = "/v2/acme/app/manifests/1"
OTHER = Digest(f"sha256:{'e' * 64}")


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
