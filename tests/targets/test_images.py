"""Images on one engine: pulled exactly, tagged, kept, cleaned; and the tags that are only kept pulled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sidecar.core.decision import Cause, Keep
from sidecar.core.image import ImageRef
from sidecar.core.rollout import Phase, Revision
from sidecar.core.target import Kind
from sidecar.errors import Refused, Transient, Unreachable
from sidecar.executor import Executor
from sidecar.ports import Ports
from sidecar.reconciler import Reconciler
from sidecar.targets._engine import EngineError
from sidecar.targets.discovery import Scope
from sidecar.targets.image import ImageDriver, image_target
from sidecar.targets.images import Images, Prune, unused_images
from tests.core.values import rollout
from tests.fakes import FakeClock, FakeEngine, FakeHints, FakeRegistry, RecordedEvents, digest, image_id
from tests.memory_journal import MemoryJournal

REF = ImageRef.parse("registry.test/web:1")
NAME = "registry.test/web"


class Pruning(FakeEngine):
    """An engine that remembers what it was asked to prune, and with what credentials to pull."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.pruned: list[str] = []
        self.auths: list[Any] = []
        self.prune_fails = False

    async def prune_images(self) -> dict[str, Any]:
        if self.prune_fails:
            raise Transient("a prune runs already")
        self.pruned.append("images")
        return {"SpaceReclaimed": 7}

    async def prune_system(self) -> dict[str, Any]:
        self.pruned.append("system")
        return {"SpaceReclaimed": 9}

    async def pull(self, repository: str, wanted: str, *, auth: Any, **options: Any) -> None:
        self.auths.append(auth)
        await super().pull(repository, wanted, auth=auth, **options)


class Store:
    """An image store with the events it tells."""

    def __init__(self, prune: Prune = Prune.REPLACED, *, default_enable: bool = False) -> None:
        self.engine = Pruning()
        self.events = RecordedEvents()
        self.asked: list[str] = []
        self.images = Images(
            self.engine,  # type: ignore[arg-type]
            events=self.events,
            authorize=self.authorize,
            prune=prune,
            scope=Scope(default_enable=default_enable),
        )
        for letter in "abc":
            self.engine.has_image(letter, repository=NAME, pulled=letter == "a")

    async def authorize(self, host: str) -> dict[str, str]:
        self.asked.append(host)
        return {"username": "me", "password": "secret"}

    async def pull(self, letter: str) -> dict[str, Any]:
        return await self.images.pull(REF, digest(letter), platform=None, target="docker:web")


async def test_exactly_the_digest_is_pulled_with_the_credentials_of_its_registry() -> None:
    """The reference by digest, never the tag; what is configured for its host goes along, and into no line."""
    store = Store()
    assert (await store.pull("b"))["Id"] == image_id("b")
    assert store.engine.pulls == [f"{NAME}@{digest('b')}"]
    assert (store.asked, store.engine.auths) == (["registry.test"], [{"username": "me", "password": "secret"}])
    (told,) = store.events.named("image.pulled")
    assert told["digest"] == digest("b")
    assert store.events.named("pull.progressed")[0]["total_bytes"] == 1
    assert "secret" not in str(store.events.told)


async def test_what_is_there_is_not_pulled_again() -> None:
    """The replicas of a service pull once, also when they ask together."""
    store = Store()
    await asyncio.gather(*(store.pull("b") for _ in range(5)))
    assert len(store.engine.pulls) == 1
    await store.pull("a")
    assert len(store.engine.pulls) == 1


async def test_a_pull_after_which_the_image_is_not_there_says_so() -> None:
    """Somebody prunes at that moment: it is tried again later."""
    store = Store()
    store.engine.offered[image_id("b")]["RepoDigests"] = []
    with pytest.raises(Transient, match="is it being pruned"):
        await store.pull("b")


async def test_a_tag_is_lent_and_given_back_whatever_happens() -> None:
    """While a container is created its reference names the new image, and afterwards what it named before."""
    store = Store()
    await store.pull("b")
    store.engine.tags[str(REF)] = image_id("a")

    async def fail() -> None:
        async with store.images.tagged(REF, image_id("b"), otherwise=None):
            assert store.engine.tags[str(REF)] == image_id("b")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert store.engine.tags[str(REF)] == image_id("a")


async def test_a_tag_that_named_nothing_names_the_old_image_afterwards() -> None:
    """So that what stands in the Compose file means what runs; where there is no old one it stays."""
    store = Store()
    await store.pull("b")
    async with store.images.tagged(REF, image_id("b"), otherwise=image_id("a")):
        pass
    assert store.engine.tags[str(REF)] == image_id("a")
    async with store.images.tagged(REF, image_id("a"), otherwise=None):
        assert store.engine.tags[str(REF)] == image_id("a")
    assert store.engine.tags[str(REF)] == image_id("a")


@pytest.mark.parametrize("prune, is_there", [(Prune.REPLACED, False), (Prune.NONE, True)])
async def test_the_image_before_the_last_update_is_kept_and_the_one_before_it_goes(
    prune: Prune, is_there: bool
) -> None:
    """Our own tag keeps one image for a target; what it kept before is removed unless nothing may be."""
    store = Store(prune)
    await store.pull("b")
    await store.images.keep_previous("web", image_id("a"))
    at_stake = await store.images.at_stake("web", rollout(), image_id("c"))
    second = rollout(phase=Phase.SUCCEEDED, plan={"images": at_stake})
    await store.images.keep_previous("web", image_id("b"))
    assert store.engine.tags["sidecar-previous:web"] == image_id("b")
    await store.images.tidy(target="web", unused=unused_images(second))
    assert (image_id("a") in store.engine.images) is is_there


@pytest.mark.parametrize(
    "phase, unused",
    [
        (Phase.SUCCEEDED, ["kept", "superseded"]),
        (Phase.ROLLED_BACK, ["kept", "superseded", "new-image"]),
        (Phase.FAILED, ["kept", "superseded"]),
        (Phase.ABANDONED, ["kept", "superseded"]),
    ],
)
def test_what_failed_is_of_no_use_and_the_ends_of_anything_else_are(phase: Phase, unused: list[str]) -> None:
    """A rollback was made from the new image; in every other end both may still be wanted."""
    ended = rollout(phase=phase, plan={"images": ["kept", "superseded", "old-image", "new-image"]})
    assert unused_images(ended) == unused


async def test_what_takes_the_place_of_another_cleans_up_after_it() -> None:
    """What the superseded one pulled, and what it would have cleaned, is in the plan of the newer."""
    store = Store()
    await store.images.keep_previous("web", image_id("a"))
    older = rollout(plan={"images": [image_id("a"), image_id("b")]})
    assert await store.images.at_stake("web", older, image_id("c")) == [image_id(letter) for letter in "abc"]


async def test_an_image_with_a_name_stays() -> None:
    """Whether the name is ours or somebody's, it says that the image is wanted."""
    store = Store()
    await store.pull("b")
    await store.images.keep_previous("web", image_id("a"))
    store.engine.tags["mine:1"] = image_id("b")
    await store.images.tidy(target="web", unused=[image_id("a"), image_id("b")])
    assert {image_id("a"), image_id("b")} <= set(store.engine.images)


@pytest.mark.parametrize(
    "prune, pruned",
    [(Prune.NONE, []), (Prune.REPLACED, []), (Prune.DANGLING, ["images"]), (Prune.SYSTEM, ["system"])],
)
async def test_it_is_pruned_as_set(prune: Prune, pruned: list[str]) -> None:
    """Nothing, what was replaced, every dangling image, or what `docker system prune` does."""
    store = Store(prune)
    await store.images.tidy(target="web", unused=[])
    assert store.engine.pruned == pruned


@pytest.mark.parametrize(
    "name, labels, state, default_enable, pruned",
    [
        ("web.sidecar-old", {}, "exited", False, "images"),
        ("web", {"sidecar.enable": "true"}, "exited", False, "images"),
        ("web", {"sidecar.enable": "true"}, "created", False, "images"),
        ("web", {"sidecar.enable": "true"}, "running", False, "system"),
        ("web", {}, "exited", True, "images"),
        ("web", {"sidecar.enable": "false"}, "exited", True, "system"),
        ("web", {}, "exited", False, "system"),
    ],
)
async def test_a_prune_of_the_system_spares_what_is_looked_after_and_down(
    name: str, labels: dict[str, str], state: str, default_enable: bool, pruned: str
) -> None:
    """It would go and its networks with it, whether a rollout or a person stopped it: then only images are pruned."""
    store = Store(Prune.SYSTEM, default_enable=default_enable)
    store.engine.tags[str(REF)] = image_id("a")
    store.engine.run(name, str(REF), labels=labels, state=state)
    await store.images.tidy(target="web", unused=[])
    assert store.engine.pruned == [pruned]


async def test_nothing_is_created_while_the_system_is_pruned() -> None:
    """A candidate that came between the look and the prune would go, and soon the old one that it was made for."""
    store = Store(Prune.SYSTEM)
    store.engine.tags[str(REF)] = image_id("a")
    pruning, created = asyncio.Event(), list[bool]()

    async def prune_system() -> dict[str, Any]:
        await pruning.wait()
        created.append(store.engine.named("web.sidecar-new") is not None)
        return {}

    async def create() -> None:
        async with store.images.tagged(REF, image_id("a"), otherwise=None):
            store.engine.run("web.sidecar-new", str(REF), labels={}, state="created")

    store.engine.prune_system = prune_system  # type: ignore[method-assign]
    tasks = [asyncio.ensure_future(store.images.tidy(target="web", unused=[]))]
    await asyncio.sleep(0)
    tasks.append(asyncio.ensure_future(create()))
    for _ in range(10):
        await asyncio.sleep(0)
    pruning.set()
    await asyncio.gather(*tasks)
    assert created == [False]
    assert store.engine.named("web.sidecar-new") is not None


async def test_cleaning_that_fails_is_told_and_changes_nothing() -> None:
    """An update does not depend on it."""
    store = Store(Prune.DANGLING)
    store.engine.prune_fails = True
    await store.images.tidy(target="web", unused=[])
    assert store.events.named("image.prune_failed")


class Kept(Store):
    """A tag that is kept pulled, and the line over it."""

    def __init__(self) -> None:
        super().__init__()
        clock = self.engine.clock
        self.registry = FakeRegistry({str(REF): digest("b")})
        self.journal = MemoryJournal(clock=clock)
        self.driver = ImageDriver(self.engine, self.images, journal=self.journal, clock=clock)  # type: ignore[arg-type]
        ports = Ports(
            registry=self.registry,
            drivers={Kind.IMAGE: self.driver},
            journal=self.journal,
            hints=FakeHints(clock),
            clock=clock,
            events=self.events,
        )
        executor = Executor(ports, turns=asyncio.Semaphore(1), stopping=asyncio.Event())
        self.reconciler = Reconciler(ports, executor)

    async def look(self) -> object:
        await self.journal.add_image_target(REF)
        return await self.reconciler.reconcile(f"image:{REF}", Cause("webhook", 0.0))


async def test_an_image_without_a_container_is_pulled_and_tagged() -> None:
    """The tag names exactly the digest; a second look keeps it, and a newer digest moves it on."""
    kept = Kept()
    kept.engine.tags.clear()
    assert isinstance(await kept.look(), Keep)
    assert kept.engine.tags[str(REF)] == image_id("b")
    assert kept.journal.recorded[-1].phase is Phase.SUCCEEDED
    assert await kept.look() == Keep("up to date")
    kept.registry.tags[str(REF)] = digest("c")
    await kept.look()
    assert kept.engine.tags[str(REF)] == image_id("c")
    assert kept.engine.tags["sidecar-previous:registry.test_web_1"] == image_id("b")
    assert kept.engine.containers == {}


async def test_an_image_that_was_pruned_before_it_got_its_tag_is_pulled_again() -> None:
    """Pulled by its digest it has no name yet, so that anybody's prune takes it away."""
    kept = Kept()
    target = image_target(REF)
    prepared = await kept.driver.prepare(target, rollout(to=Revision(digest=digest("b"))))
    del kept.engine.images[image_id("b")]
    await kept.driver.step(target, prepared, await kept.driver.observe(target, prepared))
    assert kept.engine.tags[str(REF)] == image_id("b")


async def test_a_pull_only_rollout_is_over_where_its_old_image_has_gone() -> None:
    """What somebody removed meanwhile cannot be kept, and is not waited for."""
    kept = Kept()
    target = image_target(REF)
    finishing = rollout(phase=Phase.FINISHING)
    assert (await kept.driver.observe(target, finishing)).at_rest
    assert await kept.driver.log_tail(target, finishing) == ""


async def test_without_a_digest_nothing_is_pulled() -> None:
    """A defect of ours is refused, not guessed around."""
    kept = Kept()
    with pytest.raises(Refused, match="no digest to pull"):
        await kept.driver.prepare(image_target(REF), rollout(to=type(rollout().to)()))


async def test_an_image_that_the_engine_fails_to_remove_is_removed_after_the_next_update() -> None:
    """That is told, and the rollout is over all the same."""
    store = Store()
    store.engine.has_image("b", repository=NAME, pulled=True)
    store.engine.fails["remove_image"] = lambda: EngineError("refused", status=500)
    await store.images.tidy(target="docker:web", unused=[image_id("b")])
    assert store.events.named("image.prune_failed")
    store.engine.fails.clear()
    at_stake = await store.images.at_stake("web", rollout(target_id="docker:web"), image_id("c"))
    assert image_id("b") in at_stake
    await store.images.tidy(target="docker:web", unused=at_stake)
    assert image_id("b") not in store.engine.images


async def test_an_engine_that_goes_away_before_an_image_is_removed_is_waited_for() -> None:
    """Whoever asked has to ask again: once the rollout is over nobody knows of the image."""
    store = Store()
    store.engine.has_image("b", repository=NAME, pulled=True)
    store.engine.fails["remove_image"] = lambda: Unreachable("gone")
    with pytest.raises(Unreachable):
        await store.images.tidy(target="docker:web", unused=[image_id("b")])
