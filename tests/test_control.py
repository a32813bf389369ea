"""What a person can ask of the daemon: to look, to plan, to enqueue, to release; no second way to a rollout."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from sidecar.control import DaemonControl
from sidecar.control_port import Unmanaged, WrongCredentials
from sidecar.core.decision import Cause, Hold
from sidecar.core.hint import Hint
from sidecar.core.image import ImageRef
from sidecar.core.rollout import Phase, Rollout
from sidecar.core.target import Image, Kind, Observed, State, Target
from sidecar.errors import Refused, Transient, Unreachable
from sidecar.executor import Executor
from sidecar.judging import Judged
from sidecar.ports import Described, Ports, Spec
from sidecar.reconciler import Reconciler
from tests.fakes import FakeClock, FakeHints, FakeRegistry, RecordedEvents
from tests.memory_journal import MemoryJournal
from tests.test_crash import TARGET as DOCKER_WEB
from tests.test_crash import World
from tests.web.fake_control import NEW, OLD, REF, ROLLOUT, TARGET

OTHER = replace(TARGET, id="docker:db", ref=ImageRef.parse("postgres:16"), service="shop/db")
REFUSED = replace(TARGET, id="docker:odd", ref=ImageRef.parse("odd:1"), service="odd", refusal="label sidecar.x")
UNMANAGED = Unmanaged(name="cache", image="redis", reason="no label")


class Containers:
    """A driver of which only the looks are asked."""

    def __init__(self, *targets: Target) -> None:
        self.targets: Sequence[Target] = targets
        self.refusals: dict[str, str] = {}

    async def refusal(self, target: Target) -> str | None:
        return self.refusals.get(target.id)

    async def list(self) -> Sequence[Target]:
        return self.targets

    async def describe(self, target: Target, rollout: Rollout | None, *, with_spec: bool) -> Described:
        spec = Spec(request={"Image": str(target.ref)}, commands=[rollout.id if rollout else "none"])
        return Described(previous_image="i0", spec=spec if with_spec else None)

    async def observe(self, target: Target, rollout: object) -> Observed:
        assert rollout is None
        return Observed(now=1.0, state=State.RUNNING, instance="c1", image=Image(id="i1", digests=frozenset({OLD})))


class Desk:
    """A control with what it works with."""

    def __init__(self) -> None:
        clock = FakeClock()
        self.journal = MemoryJournal(clock=clock)
        self.registry = FakeRegistry()
        self.hints = FakeHints(clock)
        self.unwell: str | None = None
        self.containers = Containers(TARGET, OTHER, REFUSED)
        ports = Ports(
            registry=self.registry,
            drivers={Kind.DOCKER: self.containers},  # type: ignore[dict-item]
            journal=self.journal,
            hints=self.hints,
            clock=clock,
            events=RecordedEvents(),
        )
        executor = Executor(ports, turns=asyncio.Semaphore(1), stopping=asyncio.Event())
        self.reconciler = Reconciler(ports, executor)
        self.control = DaemonControl(
            ports,
            self.reconciler,
            unmanaged=self.unmanaged,
            probes={"engine": self.probe},
        )

    async def unmanaged(self) -> Sequence[Unmanaged]:
        return [UNMANAGED]

    async def probe(self) -> str | None:
        return self.unwell


@pytest.fixture
async def desk() -> Desk:
    return Desk()


async def test_targets_show_what_was_judged_last(desk: Desk):
    """A target not looked at says so, a refused one why, and an open rollout its phase."""
    await desk.journal.record(replace(ROLLOUT, phase=Phase.UPDATING, reason="", plan={}))
    looked, unmanaged = await desk.control.targets()
    shown = {each.target.id: (each.verdict, each.phase) for each in looked}
    assert shown == {"docker:db": ("keep", ""), "docker:odd": ("hold", ""), "docker:web": ("rollout", "updating")}
    assert [each.reason for each in looked][:2] == ["not looked at yet", "label sidecar.x"]
    assert unmanaged == [UNMANAGED]


async def test_all_that_is_known_of_a_target_is_shown(desk: Desk):
    """What runs, what was rolled out last, what failed here, and, asked for, what makes it again."""
    await desk.journal.record(ROLLOUT)
    (shown,) = await desk.control.show("web", with_spec=False)
    assert (shown.looked.target.id, shown.observed.instance) == ("docker:web", "c1")
    assert (shown.rollout and shown.rollout.id, shown.described) == ("rollout-1", Described(previous_image="i0"))
    assert shown.rejected == {NEW: ROLLOUT.reason}
    (shown,) = await desk.control.show("docker:web", with_spec=True)
    assert shown.described.spec == Spec(request={"Image": str(REF)}, commands=["rollout-1"])
    (other,) = await desk.control.show("postgres:16", with_spec=True)
    assert other.rollout is None


@pytest.mark.parametrize("name", ["web", "docker:web"])
async def test_what_is_gone_is_shown_by_its_last_rollout(desk: Desk, name: str):
    """When somebody needs it most: the container was removed, and the journal has what makes it again."""
    await desk.journal.record(replace(ROLLOUT, phase=Phase.FAILED))
    desk.containers.targets = (OTHER,)
    (shown,) = await desk.control.show(name, with_spec=True)
    assert (shown.looked.target.id, shown.looked.target.ref) == ("docker:web", REF)
    assert (shown.looked.verdict, shown.looked.reason) == ("hold", "it does not exist any more")
    assert shown.described.spec == Spec(request={"Image": str(REF)}, commands=["rollout-1"])


async def test_what_may_be_several_is_not_taken_for_one_that_is_gone(desk: Desk):
    """Two projects have a service of the name, and once there was a container of it."""
    projects = [replace(TARGET, id=f"docker:{each}-web-1", service=f"{each}/web", project=each) for each in "ab"]
    desk.containers.targets = projects
    await desk.journal.record(replace(ROLLOUT, phase=Phase.FAILED))
    with pytest.raises(Refused, match="services of several projects are called 'web'"):
        await desk.control.show("web", with_spec=False)


async def test_what_never_was_is_not_shown(desk: Desk):
    """A name that nothing has or had is refused with those that there are."""
    with pytest.raises(Refused, match="nobody"):
        await desk.control.show("nobody", with_spec=False)


async def test_a_reference_means_containers_beside_an_image_that_is_only_pulled(desk: Desk):
    """The image target of a reference is called by it; what runs the image is meant as well."""
    image = replace(TARGET, id=f"image:{REF}", kind=Kind.IMAGE, service=str(REF), project=None)
    desk.containers.targets = (TARGET, image)
    _, target_ids = await desk.control.update(str(REF))
    assert target_ids == ["docker:web", image.id]
    _, target_ids = await desk.control.update(image.id)
    assert target_ids == [image.id]


async def test_a_plan_judges_and_does_nothing(desk: Desk):
    """A plan says what is available, and what cannot be resolved is held with the reason."""
    desk.registry.tags[str(REF)] = NEW
    (web,) = await desk.control.plan("me/app:1")
    assert (web.verdict, web.running, web.available) == ("rollout", OLD, NEW)
    desk.registry.is_down = True
    db, odd, web = await desk.control.plan(None)
    assert {each.verdict for each in (db, odd, web)} == {"hold"}
    assert "connection refused" in web.reason
    assert not await desk.journal.open_rollouts()


async def test_a_plan_says_what_is_refused_and_what_is_under_way(desk: Desk):
    """It agrees with what the targets show: neither a rollout that would be refused, nor a verdict beside one."""
    desk.registry.tags[str(REF)] = NEW
    desk.containers.refusals = {"docker:web": "its volumes would be lost"}
    (web,) = await desk.control.plan("web")
    assert (web.verdict, web.reason, web.available) == ("hold", "its volumes would be lost", NEW)
    await desk.journal.record(replace(ROLLOUT, phase=Phase.UPDATING, reason="", plan={}))
    (planned,), (shown, *_) = await desk.control.plan("web"), await desk.control.targets()
    assert (planned.verdict, planned.phase) == ("rollout", "updating")
    assert "docker:web" in {each.target.id for each in shown if each.phase == "updating"}


async def test_an_intent_that_could_not_be_prepared_is_shown_as_held(desk: Desk):
    """The reason is what people need; that it would be updated is in the log."""
    desk.registry.is_down = True
    await desk.journal.record(replace(ROLLOUT, phase=Phase.UPDATING, reason="", plan=None))
    (web,) = await desk.control.plan("web")
    assert web.verdict == "hold"
    assert "connection refused" in web.reason


async def test_what_is_held_before_it_has_begun_is_shown_as_held(desk: Desk):
    """A hook that fails says why; one whose new container is there already is under way, whatever was said last."""
    intent = replace(ROLLOUT, phase=Phase.UPDATING, reason="", plan={}, to=replace(ROLLOUT.to, instance=None))
    await desk.journal.record(intent)
    desk.reconciler.last["docker:web"] = Judged(target=TARGET, verdict=Hold("the pre-update hook failed"))
    shown = {each.target.id: each for each in (await desk.control.targets())[0]}
    assert (shown["docker:web"].verdict, shown["docker:web"].reason) == ("hold", "the pre-update hook failed")
    await desk.journal.record(replace(intent, to=replace(intent.to, instance="c2")))
    shown = {each.target.id: each for each in (await desk.control.targets())[0]}
    assert shown["docker:web"].verdict == "rollout"


@pytest.mark.parametrize("text", ["docker:web", "web", "me/app:1", "me/app", "docker.io/me/app:1"])
async def test_an_update_is_a_delivery(desk: Desk, text: str):
    """What a person asks for is kept on disk like what a registry sends, and exactly what is meant is enqueued."""
    delivery_id, targets = await desk.control.update(text)
    assert targets == ["docker:web"]
    assert [(name, cause.kind, cause.delivery_ids) for name, cause in desk.hints.asked] == [
        ("docker:web", "cli", (delivery_id,))
    ]
    (kept,) = (await desk.control.history(limit=5)).deliveries
    assert (kept.id, kept.hints, kept.fate, kept.reason) == (delivery_id, (Hint(REF),), "accepted", f"update {text}")
    assert not await desk.journal.unfinished_deliveries()


@pytest.mark.parametrize(
    "images, names, targets, unknown",
    [
        ([], [], ["docker:db", "docker:odd", "docker:web"], []),
        (["me/app"], [], ["docker:web"], []),
        (["me/app:1", "postgres", "docker.io/me/app"], [], ["docker:web", "docker:db"], []),
        (["me/app:2", "web", "Not A Ref"], [], [], ["me/app:2", "web", "Not A Ref"]),
        ([], ["db", "nobody"], ["docker:db"], ["nobody"]),
        (["me/app"], ["web", "db"], ["docker:web", "docker:db"], []),
    ],
)
async def test_many_are_asked_for_at_once(
    desk: Desk, images: list[str], names: list[str], targets: list[str], unknown: list[str]
):
    """Everything, or what images and names mean, by one delivery; what means nothing is named."""
    delivery_id, found, nothing = await desk.control.update_matching(images=images, names=names)
    assert (list(found), list(nothing)) == (targets, unknown)
    assert [(name, cause.kind, cause.delivery_ids) for name, cause in desk.hints.asked] == [
        (target, "watchtower", (delivery_id,)) for target in targets
    ]
    (kept,) = (await desk.control.history(limit=5)).deliveries
    assert (kept.id, kept.source, kept.fate) == (delivery_id, "watchtower", "accepted")
    assert kept.reason == f"update {' '.join([*images, *names]) or 'everything'}"


@pytest.mark.parametrize("text", ["nobody", "me/app:2", "not a reference", ""])
async def test_what_means_nothing_is_refused(desk: Desk, text: str):
    """Nothing is kept for a text that means nothing, and the message says what there is."""
    for ask in (desk.control.update, desk.control.plan, desk.control.release):
        with pytest.raises(Refused, match=r"nothing is meant|is no target"):
            await ask(text)
    assert not desk.hints.asked


async def test_a_compose_service_means_its_containers(desk: Desk):
    """By the name that stands in the Compose file all replicas are meant, by every command, before any image of it."""
    replica = replace(TARGET, id="docker:shop-app-1", service="docker:shop/app")
    other = replace(replica, id="docker:shop-app-2")
    named_alike = replace(OTHER, ref=ImageRef.parse("app:1"))
    desk.containers.targets = (replica, other, named_alike)
    _, targets = await desk.control.update("app")
    assert targets == ["docker:shop-app-1", "docker:shop-app-2"]
    assert list((await desk.control.release("app"))[1]) == targets
    desk.registry.tags[str(REF)] = NEW
    assert [each.target.id for each in await desk.control.plan("app")] == targets
    desk.journal.clock.time = 5.0
    await desk.journal.record(replace(ROLLOUT, target_id=replica.id))
    desk.journal.clock.time = 6.0
    await desk.journal.record(replace(ROLLOUT, id="rollout-2", target_id=other.id))
    history = await desk.control.history(limit=5, target_id="app")
    assert [each.rollout.target_id for each in history.transitions] == [other.id, replica.id]
    assert len((await desk.control.history(limit=1, target_id="app")).transitions) == 1


async def test_a_service_of_several_projects_names_the_candidates(desk: Desk):
    """Which one was meant is not guessed; the message has what to write instead."""
    one = replace(TARGET, id="docker:shop-app-1", service="docker:shop/app")
    other = replace(one, id="docker:blog-app-1", service="docker:blog/app", project="blog")
    desk.containers.targets = (one, other, replace(OTHER, project=None, service="docker:x/app"))
    words = "called 'app'; name one of docker:blog-app-1 of project blog, docker:shop-app-1 of project shop$"
    for ask in (desk.control.update, desk.control.plan, desk.control.release):
        with pytest.raises(Refused, match=words):
            await ask("app")
    with pytest.raises(Refused, match=words):
        await desk.control.history(limit=5, target_id="app")


async def test_a_release_forgets_and_looks_again(desk: Desk):
    """A digest that failed may be tried again, at once; other services keep theirs."""
    failed = replace(ROLLOUT, phase=Phase.UPDATING, reason="").enter(Phase.ROLLING_BACK, "became unhealthy")
    await desk.journal.record(failed)
    other = replace(failed, id="rollout-2", target_id=OTHER.id, service=OTHER.service, repository=OTHER.ref.name)
    await desk.journal.record(other)
    delivery_id, released = await desk.control.release("web")
    assert released == {"docker:web": 1}
    assert not await desk.journal.rejected(TARGET.service, REF.name)
    assert await desk.journal.rejected(OTHER.service, OTHER.ref.name)
    assert [cause.delivery_ids for _, cause in desk.hints.asked] == [(delivery_id,)]
    assert [each.reason for each in (await desk.control.history(limit=5)).deliveries] == ["release web"]


async def test_wrong_credentials_are_counted_since_the_start(desk: Desk):
    """By source, with the time of the last; the journal is kept free of what anybody can send."""
    assert desk.control.wrong_credentials() == []
    for source in ("generic", "dockerhub", "generic"):
        desk.journal.clock.time += 1
        desk.control.note_wrong_credential(source)
    now = desk.journal.clock.now()
    assert desk.control.wrong_credentials() == [
        WrongCredentials(source="dockerhub", count=1, last_at=now - 1),
        WrongCredentials(source="generic", count=2, last_at=now),
    ]
    assert not (await desk.control.history(limit=5)).deliveries


async def test_it_is_ready_when_every_part_is(desk: Desk):
    """A part that is not well is named."""
    assert await desk.control.ready() == {}
    desk.unwell = "does not answer"
    assert await desk.control.ready() == {"engine": "does not answer"}
    assert not (await desk.control.history(limit=5)).deliveries


async def test_the_history_of_a_target_needs_no_engine(desk: Desk):
    """By its id it is found while the engine is away, when somebody is likely to look for it."""
    await desk.journal.record(replace(ROLLOUT, phase=Phase.UPDATING, reason=""))

    async def refuse() -> Sequence[Target]:
        message = "the engine does not answer"
        raise Unreachable(message)

    desk.containers.list = refuse  # type: ignore[method-assign]
    assert len((await desk.control.history(limit=5, target_id="docker:web")).transitions) == 1


async def test_the_history_of_a_target_is_found_by_its_name(desk: Desk):
    """As an update is; a name that nothing has and had is refused, not answered with nothing."""
    await desk.journal.record(replace(ROLLOUT, phase=Phase.UPDATING, reason=""))
    for name in ("web", "docker:web"):
        assert len((await desk.control.history(limit=5, target_id=name)).transitions) == 1
    assert not (await desk.control.history(limit=5, target_id="db")).transitions
    assert not (await desk.control.history(limit=5, target_id="docker:db")).transitions
    desk.containers.targets = (OTHER,)
    assert len((await desk.control.history(limit=5, target_id="web")).transitions) == 1  # it is gone
    with pytest.raises(Refused, match="there is no target 'docker:nobody'; targets are docker:db"):
        await desk.control.history(limit=5, target_id="nobody")


async def test_what_is_held_is_shown_as_held_after_a_restart() -> None:
    """What was prepared and not begun says why, whichever process held it first."""
    world, cause = World(), Cause("webhook", 0.0, ("d1",))
    world.engine.fails["create"] = lambda: Transient("no such volume driver")
    await world.reconciler().run_pass(DOCKER_WEB, cause)
    restarted = world.reconciler()
    await restarted.run_pass(DOCKER_WEB, cause)

    async def nobody() -> list[Unmanaged]:
        return []

    control = DaemonControl(world.ports(), restarted, unmanaged=nobody, probes={})
    (shown,), _ = await control.targets()
    assert restarted.outcome_of(DOCKER_WEB) == "hold: no such volume driver"
    assert (shown.verdict, shown.reason) == ("hold", "no such volume driver")
