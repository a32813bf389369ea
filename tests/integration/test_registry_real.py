"""CNCF Distribution, asked as the daemon asks: plain, behind a password, hung, down, and back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from sidecar.core.image import Digest, ImageRef
from sidecar.errors import Refused, Transient
from sidecar.oci.credential import Credential
from sidecar.oci.transport import Timeouts
from sidecar.registry import OciRegistry
from tests.fakes import FakeClock
from tests.testbed import images
from tests.testbed.images import OTHER_PLATFORM, PLATFORM, Image, Index, digest_of
from tests.testbed.registry import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Login, Registry

MakeRegistry = Callable[..., Registry]
PASSWORD = "s3cr3t"
LOGIN = Login(user="ci", password=PASSWORD)


@asynccontextmanager
async def client(*known: Credential, seconds: float = 30.0) -> AsyncIterator[OciRegistry]:
    """Ask with these credentials."""

    async def find(registry: str) -> Credential | None:
        return next((one for one in known if one.registry == registry), None)

    timeouts = Timeouts(total_seconds=seconds, connect_seconds=seconds)
    async with OciRegistry(clock=FakeClock(), credentials=find, timeouts=timeouts) as one:
        yield one


def reference(registry: Registry, name: str) -> ImageRef:
    return ImageRef.parse(registry.reference(name))


def image(version: str, *, platform: str = PLATFORM, media_type: str = DOCKER_MANIFEST) -> Image:
    layer = images.packed({"/version": version})
    return Image(layers=(layer,), config={"Labels": {"version": version}}, platform=platform, media_type=media_type)


@pytest.mark.parametrize("media_type", [DOCKER_MANIFEST, OCI_MANIFEST])
async def test_a_tag_means_what_was_pushed_last(registry: MakeRegistry, media_type: str):
    """Each push of a tag is seen at once, with the digest that the registry gave it."""
    real = registry()
    async with client() as asking:
        for version in ("1", "2"):
            pushed = images.push(real, image(version, media_type=media_type), "app:latest")
            assert (await asking.resolve(reference(real, "app"))).digest == pushed
            assert (await asking.resolve(reference(real, "app:latest"))).digest == pushed


@pytest.mark.parametrize("media_type, child_type", [(OCI_INDEX, OCI_MANIFEST), (DOCKER_LIST, DOCKER_MANIFEST)])
async def test_an_index_is_recognised_by_what_was_pushed_for_the_platform(
    registry: MakeRegistry, media_type: str, child_type: str
):
    """Index, platform's manifest and configuration; each platform has its own, and one image has two."""
    real = registry()
    children = [image(platform, platform=platform, media_type=child_type) for platform in (PLATFORM, OTHER_PLATFORM)]
    pushed = Digest(images.push(real, Index(images=tuple(children), media_type=media_type), "acme/app:1"))
    ref = reference(real, "acme/app:1")
    async with client() as asking:
        assert (await asking.resolve(ref)).digest == pushed
        for child in children:
            expected = {pushed, child.digest, digest_of(child.config_json)}
            assert await asking.identities(ref, pushed, platform=child.platform) == expected
        alone = Digest(children[0].digest)
        assert await asking.identities(ref, alone, platform=PLATFORM) == {alone, digest_of(children[0].config_json)}


async def test_what_was_never_pushed_is_refused(registry: MakeRegistry):
    """A repository, a tag and a digest that are not there."""
    real = registry()
    images.push(real, image("1"), "app:1")
    async with client() as asking:
        for name in ("app:2", "other:1"):
            with pytest.raises(
                Refused, match=rf"resolving {real.address}/{name}: registry {real.address} does not know"
            ):
                await asking.resolve(reference(real, name))
        with pytest.raises(Refused, match="does not know"):
            await asking.identities(reference(real, "app:1"), Digest(f"sha256:{'0' * 64}"), platform=PLATFORM)


async def test_a_deleted_image_is_refused(registry: MakeRegistry):
    """What was there and is not any more is not known, also not from memory."""
    real = registry()
    images.push(real, image("1"), "app:1")
    async with client() as asking:
        await asking.resolve(reference(real, "app:1"))
        real.delete("app:1")
        with pytest.raises(Refused, match="does not know"):
            await asking.resolve(reference(real, "app:1"))


async def test_a_password_lets_in(registry: MakeRegistry):
    """With htpasswd the right one lets in; a wrong one, and none, are told apart, and none is shown."""
    real = registry(login=LOGIN)
    pushed = images.push(real, image("1"), "app:1")
    ref = reference(real, "app:1")
    async with client(Credential(registry=real.address, username="ci", password=PASSWORD)) as asking:
        assert (await asking.resolve(ref)).digest == pushed
        assert pushed in await asking.identities(ref, Digest(pushed), platform=PLATFORM)
    async with client(Credential(registry=real.address, username="ci", password="wr0ng")) as asking:
        with pytest.raises(Refused, match=rf"refuses the credentials for {real.address} \(401\)") as caught:
            await asking.resolve(ref)
        assert "wr0ng" not in str(caught.value)
    async with client(Credential(registry="127.0.0.1:1", username="ci", password=PASSWORD)) as asking:
        with pytest.raises(Refused, match=rf"without credentials \(401\).*docker login {real.address}"):
            await asking.resolve(ref)


async def test_a_registry_that_is_down_may_come_back(registry: MakeRegistry):
    """Down is transient, and once it is back the next question is answered."""
    real = registry()
    pushed = images.push(real, image("1"), "app:1")
    ref = reference(real, "app:1")
    async with client() as asking:
        assert (await asking.resolve(ref)).digest == pushed
        real.stop()
        for _ in range(2):
            with pytest.raises(
                Transient, match=rf"resolving {ref}: no connection to {real.address}: Connection refused"
            ):
                await asking.resolve(ref)
        real.start()
        assert (await asking.resolve(ref)).digest == pushed


async def test_a_registry_that_hangs_is_given_up_on(registry: MakeRegistry):
    """A frozen registry takes connections and says nothing; afterwards it is asked as before."""
    real = registry()
    pushed = images.push(real, image("1"), "app:1")
    ref = reference(real, "app:1")
    async with client(seconds=0.3) as asking:
        assert (await asking.resolve(ref)).digest == pushed
        real.freeze()
        with pytest.raises(Transient, match=rf"{real.address} (did not answer|took no connection) within 0\.3 seconds"):
            await asking.resolve(ref)
        real.thaw()
        assert (await asking.resolve(ref)).digest == pushed


async def test_many_who_ask_at_once_cost_one_request(registry: MakeRegistry):
    """The registry's own log counts them."""
    real = registry()
    pushed = images.push(real, image("1"), "app:1")
    async with client() as asking:
        await asking.resolve(reference(real, "app:1"))
        before = real.log.read_text().count('"HEAD /v2/app/manifests/1 ')
        answers = await asyncio.gather(*(asking.resolve(reference(real, "app:1")) for _ in range(50)))
        assert {answer.digest for answer in answers} == {pushed}
        assert real.log.read_text().count('"HEAD /v2/app/manifests/1 ') == before + 1
