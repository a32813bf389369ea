"""What moves together where hints come in the middle of each other's updates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sidecar.core.decision import Cause, Hold, Resolved
from sidecar.core.image import ImageRef
from sidecar.core.rollout import Rollout
from sidecar.core.target import Image
from sidecar.errors import Refused, Transient
from sidecar.targets._engine import EngineError
from sidecar.targets.discovery import Scope
from tests.fakes import Behaviour, FakeEngine, digest, image_id
from tests.memory_journal import MemoryJournal
from tests.test_crash import LABELS
from tests.test_reconciler import Project, line, once

DB_AND_WEB = {"db": "", "web": "db:service_started:false"}


def push_later(project: Project, service: str, passes: list[asyncio.Future[float | None]]) -> Callable[[], None]:
    """Push an image of a service at the first wait in a gate, and hint at it."""

    def push() -> None:
        project.offer(service, "b")
        cause = Cause("webhook", project.clock.now(), (service,))
        passes.append(asyncio.ensure_future(project.reconciler.run_pass(f"docker:shop-{service}-1", cause)))

    return once(push)


async def try_in_vain(project: Project, service: str) -> None:
    """Push an image of a service whose new container cannot be made, so that its update is prepared and not begun."""
    project.offer(service, "b")
    project.engine.fails["create"] = lambda: Transient("no space left on device")
    await project.reconciler.run_pass(f"docker:shop-{service}-1", Cause("webhook", 0.0))
    del project.engine.fails["create"]


async def test_what_waits_for_an_update_that_began_before_its_hint_came_is_asked_after_it() -> None:
    """The update that is in the way began with a look that knew nothing of it."""
    project, passes = Project(DB_AND_WEB), list[asyncio.Future[float | None]]()
    project.offer("db", "b", Behaviour(healthy_after=20.0))
    project.hints.on_wait = push_later(project, "web", passes)
    await project.hint("db-1")
    await asyncio.gather(*passes)
    assert project.running() == {"db-1": "b", "web-1": "b"}
    assert project.stops() == ["db-1", "web-1"]


async def test_what_is_looked_at_again_anyway_is_not_asked_at_once() -> None:
    """A person is at work there: the pause before the next look is for them."""
    project = Project(DB_AND_WEB)
    project.offer("web", "b")

    def stop(engine: FakeEngine) -> None:
        if engine.calls[-1].startswith("pull"):
            engine.end(engine.named("shop-web-1") or {}, 143)

    project.engine.watch = stop
    assert await project.reconciler.run_pass("docker:shop-web-1", Cause("webhook", 0.0)) == 5
    assert project.hints.asked == []


async def test_a_dependency_is_not_taken_away_from_what_is_in_its_gate() -> None:
    """What depends on it would fail for that, and its digest be rejected for nothing it has done."""
    project, passes = Project(DB_AND_WEB), list[asyncio.Future[float | None]]()
    project.offer("web", "b", Behaviour(healthy_after=20.0))
    project.hints.on_wait = push_later(project, "db", passes)
    await project.hint("web-1")
    await asyncio.gather(*passes)
    calls = project.engine.calls
    assert calls.index("remove shop-web-1.sidecar-old") < calls.index("stop shop-db-1")
    assert project.running() == {"db-1": "b", "web-1": "b"}


async def test_a_dependency_that_began_during_a_pull_is_waited_for() -> None:
    """Who may start is asked again once all that takes its time is done."""
    project, passes = Project(DB_AND_WEB), list[asyncio.Future[float | None]]()
    project.offer("web", "b")
    pull, push = project.engine.pull, push_later(project, "db", passes)

    async def slow_pull(repository: str, wanted: str, **options: object) -> None:
        await pull(repository, wanted, **options)  # type: ignore[arg-type]
        if wanted == digest("wb"):
            push()
            for _ in range(2000):
                await asyncio.sleep(0)

    project.engine.pull = slow_pull  # type: ignore[method-assign]
    await project.hint("web-1")
    await asyncio.gather(*passes)
    await project.hint()
    assert project.running() == {"db-1": "b", "web-1": "b"}
    starts = [call for call in project.engine.calls if call.startswith(("stop shop", "remove shop"))]
    assert starts in (
        ["stop shop-db-1", "remove shop-db-1.sidecar-old", "stop shop-web-1", "remove shop-web-1.sidecar-old"],
        ["stop shop-web-1", "remove shop-web-1.sidecar-old", "stop shop-db-1", "remove shop-db-1.sidecar-old"],
    )


async def test_what_is_the_same_for_many_is_told_once() -> None:
    """When a project comes up the passes of all its containers look at each of them, and find the same."""
    services = dict.fromkeys(("api", "db", "mail", "web"), "")
    project = Project(services)
    resolve = project.registry.resolve

    async def answer_later(ref: ImageRef) -> Resolved:
        await asyncio.sleep(0)
        return await resolve(ref)

    project.registry.resolve = answer_later  # type: ignore[method-assign]
    passes = [project.reconciler.run_pass(f"docker:shop-{name}-1", Cause("engine", 0.0)) for name in services]
    await asyncio.gather(*passes)
    told = [facts["target"] for facts in project.events.named("target.kept")]
    assert len(set(told)) == len(services)
    assert max(map(told.count, told)) <= 2  # by its own pass, and once before that by another's


async def test_what_runs_after_an_update_is_known_at_once() -> None:
    """Whoever lists targets is shown the new digest beside the words that say so."""
    project = Project({"web": ""})
    project.offer("web", "b")
    await project.reconciler.run_pass("docker:shop-web-1", Cause("webhook", 0.0))
    observed = project.reconciler.last["docker:shop-web-1"].observed
    assert observed is not None
    assert observed.image == Image(id=image_id("wb"), digests=frozenset({digest("wb")}))


async def test_what_is_about_to_begin_is_waited_for_until_it_could_not() -> None:
    """A dependency waits for it from the moment that it is carried out, and is asked again as soon as that failed."""
    project, verdicts = Project(DB_AND_WEB), list[str]()
    project.offer("web", "b")
    create = project.engine.create_container

    async def refuse(body: dict[str, object], **options: object) -> str:
        project.engine.create_container = create  # type: ignore[method-assign]
        project.offer("db", "b")
        await project.reconciler.run_pass("docker:shop-db-1", Cause("webhook", project.clock.now(), ("db",)))
        verdicts.append(project.reconciler.outcome_of("docker:shop-db-1"))
        message = "no space left on device"
        raise Transient(message)

    project.engine.create_container = refuse  # type: ignore[method-assign]
    await project.hint("web-1")
    assert verdicts == ["hold: waits for docker:shop/web, which depends on it and is updated now"]
    assert project.running() == {"db-1": "b", "web-1": "a"}
    await project.hint("web-1")
    assert project.running() == {"db-1": "b", "web-1": "b"}


async def test_what_is_resumed_is_waited_for_before_it_has_begun() -> None:
    """Its first try failed; in the second it counts from its first moment as well."""
    project, passes = Project(DB_AND_WEB), list[asyncio.Future[float | None]]()
    await try_in_vain(project, "web")
    create, push = project.engine.create_container, push_later(project, "db", passes)

    async def create_slowly(body: dict[str, object], **options: object) -> str:
        push()
        for _ in range(500):
            await asyncio.sleep(0)
        return await create(body, **options)  # type: ignore[arg-type]

    project.engine.create_container = create_slowly  # type: ignore[method-assign]
    await project.reconciler.run_pass("docker:shop-web-1", Cause("retry", 0.0))
    await asyncio.gather(*passes)
    held = [facts["reason"] for facts in project.events.named("target.held") if facts["target"] == "docker:shop-db-1"]
    assert held == ["waits for docker:shop/web, which depends on it and is updated now"]


async def test_of_two_that_begin_at_the_same_moment_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the journal is: each looks and records before the other looks."""
    project, passes = Project(DB_AND_WEB), list[asyncio.Future[float | None]]()
    project.offer("web", "b", Behaviour(healthy_after=20.0))
    open_rollouts, pull = MemoryJournal.open_rollouts, project.engine.pull
    push = push_later(project, "db", passes)

    async def slowly(journal: MemoryJournal) -> Sequence[Rollout]:
        found = await open_rollouts(journal)
        for _ in range(300):
            await asyncio.sleep(0)
        return found

    async def pull_both(repository: str, wanted: str, **options: object) -> None:
        await pull(repository, wanted, **options)  # type: ignore[arg-type]
        push()
        for _ in range(3000):
            await asyncio.sleep(0)
            if sum(call.startswith("pull") for call in project.engine.calls) > 1:
                break

    project.engine.pull = pull_both  # type: ignore[method-assign]
    monkeypatch.setattr(MemoryJournal, "open_rollouts", slowly)
    await project.reconciler.run_pass("docker:shop-web-1", Cause("webhook", 0.0))
    await asyncio.gather(*passes)
    calls = [call for call in project.engine.calls if call.startswith(("stop shop", "remove shop"))]
    assert [call.split()[0] for call in calls][:2] == ["stop", "remove"]


async def test_a_gate_holds_no_turn() -> None:
    """With one turn for all, another target is updated while the first waits for its health."""
    project, passes = Project({"db": "", "web": ""}), list[asyncio.Future[float | None]]()
    project.reconciler = line(project.engine, project, turns=asyncio.Semaphore(1))
    project.offer("web", "b", Behaviour(healthy_after=20.0))
    project.hints.on_wait = push_later(project, "db", passes)
    await project.reconciler.run_pass("docker:shop-web-1", Cause("webhook", 0.0))
    await asyncio.gather(*passes)
    calls = project.engine.calls
    assert calls.index("stop shop-db-1") < calls.index("remove shop-web-1.sidecar-old")


async def test_what_could_not_begin_waits_for_a_dependency_that_has_begun_meanwhile() -> None:
    """Tried again in the middle of that, it would fail its gate for it, and its digest be rejected for nothing."""
    project, passes = Project(DB_AND_WEB), list[asyncio.Future[float | None]]()
    await try_in_vain(project, "web")
    project.offer("db", "b", Behaviour(healthy_after=20.0))

    def try_again() -> None:
        passes.append(asyncio.ensure_future(project.reconciler.run_pass("docker:shop-web-1", Cause("timer", 0.0))))

    project.hints.on_wait = once(try_again)
    await project.reconciler.run_pass("docker:shop-db-1", Cause("webhook", 0.0))
    assert await asyncio.gather(*passes) == [5.0]
    assert project.reconciler.outcome_of("docker:shop-web-1") == "hold: waits for its dependency docker:shop/db"
    assert project.running() == {"db-1": "b", "web-1": "a"}
    await project.hint("web-1")
    assert project.running() == {"db-1": "b", "web-1": "b"}
    assert project.stops() == ["db-1", "web-1"]


@pytest.mark.parametrize("failure", [Transient("timed out"), Refused("manifest unknown")])
async def test_a_registry_that_fails_is_asked_once_for_each_reference(failure: Exception) -> None:
    """One that hangs would hold up the whole project for its time-out, once for every replica."""
    project = Project({"web": ""}, replicas={"web": 3})
    asked: list[str] = []

    async def fail(ref: object) -> None:
        asked.append(str(ref))
        raise failure

    project.registry.resolve = fail  # type: ignore[assignment,method-assign]
    await project.reconciler.run_pass("docker:shop-web-1", Cause("webhook", 0.0))
    assert asked == ["registry.test/web:1"]
    assert all(str(failure) in str(judged.verdict) for judged in project.reconciler.last.values())
    assert len(project.reconciler.last) == 3


async def test_what_a_failed_dependency_holds_is_not_pulled() -> None:
    """Each push would fill the disk with an image that nobody runs."""
    project = Project(DB_AND_WEB | {"mail": ""})
    project.offer("db", "b", Behaviour(unhealthy_after=1.0))
    await project.hint("db-1")
    project.offer("web", "b")
    project.offer("mail", "b")
    await project.hint("mail-1")
    assert project.running() == {"db-1": "a", "web-1": "a", "mail-1": "b"}
    assert image_id("wb") not in project.engine.images


async def test_what_was_pulled_and_came_to_nothing_is_cleaned_with_the_next_update() -> None:
    """It was prepared before the first of the project was stopped, and then held by the one that failed."""
    project = Project(DB_AND_WEB)
    project.offer("db", "b", Behaviour(unhealthy_after=1.0))
    project.offer("web", "b")
    await project.hint("db-1")
    assert image_id("wb") in project.engine.images
    project.offer("db", "c")
    project.offer("web", "c")
    await project.hint("db-1")
    assert project.running() == {"db-1": "c", "web-1": "c"}
    assert image_id("wb") not in project.engine.images


async def test_what_is_hinted_at_by_a_sibling_settles_as_well() -> None:
    """Its own hint is on the way, and the tag may move a second time until then."""
    project = Project({"db": "", "web": ""}, labels={"web": {"sidecar.settle": "60s"}})
    for service in ("db", "web"):
        project.offer(service, "b")
    await project.reconciler.run_pass("docker:shop-db-1", Cause("webhook", project.clock.now() - 1, ("delivery",)))
    assert 40 < project.hints.delays["docker:shop-web-1"] < 59
    await project.reconciler.run_pass("docker:shop-db-1", Cause("resync", 0.0))
    assert project.hints.delays["docker:shop-web-1"] == 0


async def test_containers_of_no_project_wait_for_what_they_depend_on() -> None:
    """The label counts outside of Compose, too."""
    project = Project({})
    for name, labels in (("a", {"sidecar.depends-on": "b"}), ("b", {}), ("c", {})):
        project.offer(name, "a")
        ref = f"registry.test/{name}:1"
        project.engine.images[image_id(name + "a")] = project.engine.offered[image_id(name + "a")]
        project.engine.tags[ref] = image_id(name + "a")
        project.engine.run(name, ref, labels=LABELS | labels)
        project.offer(name, "b")
    project.hints.asked = [("docker:a", Cause("webhook", 0.0))]
    while project.hints.asked:
        await project.reconciler.run_pass(*project.hints.asked.pop(0))
    assert [call for call in project.engine.calls if call.startswith("stop")] == ["stop b", "stop a"]


async def test_two_updates_never_have_one_container_in_hand() -> None:
    """What is made again with another one is not updated itself meanwhile, though neither depends on the other."""
    project, passes = Project({}), list[asyncio.Future[float | None]]()
    project.offer("web", "a", Behaviour(healthy_after=20.0))
    project.offer("side", "a")
    for name in ("web", "side"):
        project.engine.images[image_id(name[0] + "a")] = project.engine.offered[image_id(name[0] + "a")]
        project.engine.tags[f"registry.test/{name}:1"] = image_id(name[0] + "a")
    project.engine.run("web", "registry.test/web:1", labels=LABELS)
    project.engine.run(
        "side", "registry.test/side:1", labels=LABELS | {"sidecar.when-stopped": "recreate"}, VolumesFrom=["web"]
    )
    project.offer("web", "b", Behaviour(healthy_after=20.0))

    def push() -> None:
        project.offer("side", "b")
        cause = Cause("webhook", project.clock.now(), ("side",))
        passes.append(asyncio.ensure_future(project.reconciler.run_pass("docker:side", cause)))

    project.hints.on_wait = once(push)
    await project.reconciler.run_pass("docker:web", Cause("webhook", 0.0))
    assert await asyncio.gather(*passes) == [5.0]
    (held,) = [each for each in project.events.named("target.held") if each["target"] == "docker:side"]
    assert held["reason"] == "waits for docker:web, whose update has it in hand"
    await project.reconciler.run_pass("docker:side", Cause("retry", 0.0))
    side = project.engine.named("side") or {}
    assert (side["image"], side["up"]) == (image_id("sb"), True)


async def test_sidecar_itself_is_updated_last() -> None:
    """What is between stop and start of another one is not cut off by its own stop."""
    project, passes = Project({}), list[asyncio.Future[float | None]]()
    for name in ("web", "own"):
        project.offer(name, "a", Behaviour(healthy_after=20.0))
        project.engine.images[image_id(name[0] + "a")] = project.engine.offered[image_id(name[0] + "a")]
        project.engine.tags[f"registry.test/{name}:1"] = image_id(name[0] + "a")
    project.engine.run("web", "registry.test/web:1", labels=LABELS)
    own_id = project.engine.run("own", "registry.test/own:1", labels=LABELS)
    project.offer("web", "b", Behaviour(healthy_after=20.0))
    project.reconciler = line(project.engine, project, scope=Scope(own_id=own_id))

    def push() -> None:
        project.offer("own", "b")
        cause = Cause("webhook", project.clock.now(), ("own",))
        passes.append(asyncio.ensure_future(project.reconciler.run_pass("docker:own", cause)))

    project.hints.on_wait = once(push)
    await project.reconciler.run_pass("docker:web", Cause("webhook", 0.0))
    assert await asyncio.gather(*passes) == [5.0]
    (held,) = [each for each in project.events.named("target.held") if each["target"] == "docker:own"]
    assert held["reason"] == "waits for docker:web: Sidecar itself is updated last"


@pytest.mark.parametrize("why", ["hook", "create"])
async def test_a_resync_looks_at_a_project_of_which_one_is_postponed(why: str) -> None:
    """Of a project one target is enqueued, and its pass is to judge all of them."""
    labels = {"web": {"sidecar.hook.pre-update": "ask"}} if why == "hook" else {}
    project = Project({"db": "", "web": ""}, labels=labels)
    project.engine.exits["ask"] = 75
    if why == "create":
        create = project.engine.create_container

        async def refuse(body: Any, **more: Any) -> str:
            if more["name"].startswith("shop-web"):
                raise EngineError("no such volume driver", status=400)
            return await create(body, **more)

        project.engine.create_container = refuse  # type: ignore[method-assign]
    project.offer("web", "b")
    await project.reconciler.run_pass("docker:shop-web-1", Cause("webhook", 0.0))
    assert project.running() == {"db-1": "a", "web-1": "a"}
    project.offer("db", "b")  # and no webhook
    for _ in range(3):
        project.clock.time += 21600
        project.hints.asked = [("docker:shop-web-1", Cause("resync", project.clock.now()))]
        for _ in range(20):
            if project.hints.asked:
                await project.reconciler.run_pass(*project.hints.asked.pop(0))
    assert project.running() == {"db-1": "b", "web-1": "a"}


async def test_one_that_could_not_be_created_does_not_hold_up_whose_network_it_has() -> None:
    """`client` is a target of its own and lives in the network of `vpn`; its new image cannot be created."""
    project = Project({"vpn": ""})
    engine, vpn = project.engine, project.engine.named("shop-vpn-1") or {}
    project.offer("client", "a")
    engine.images[image_id("ca")] = engine.offered[image_id("ca")]
    engine.tags["registry.test/client:1"] = image_id("ca")
    engine.run("client", "registry.test/client:1", labels=LABELS, NetworkMode=f"container:{vpn['id']}")
    create = engine.create_container

    async def refuse(body: Any, **more: Any) -> str:
        if body["Image"] == "registry.test/client:1" and engine.tags["registry.test/client:1"] == image_id("cb"):
            raise EngineError("no command specified", status=400)  # its new image has none
        return await create(body, **more)

    engine.create_container = refuse  # type: ignore[method-assign]
    project.offer("client", "b")
    await project.reconciler.run_pass("docker:client", Cause("webhook", 0.0))
    project.offer("vpn", "b")
    for _ in range(5):
        project.clock.time += 600
        await project.reconciler.run_pass("docker:client", Cause("webhook", 0.0))
        await project.reconciler.run_pass("docker:shop-vpn-1", Cause("webhook", 0.0))
    verdict = project.reconciler.last["docker:shop-vpn-1"].verdict
    assert project.running()["vpn-1"] == "b", verdict.reason if isinstance(verdict, Hold) else verdict


async def test_each_try_of_what_is_postponed_asks_nobody_again() -> None:
    """It is tried every few seconds on behalf of one resync, which looks at the others of its project once."""
    project = Project({"db": "", "web": ""}, labels={"web": {"sidecar.hook.pre-update": "ask"}})
    project.engine.exits["ask"] = 75
    project.offer("web", "b")
    await project.reconciler.run_pass("docker:shop-web-1", Cause("webhook", 0.0))
    resync = Cause("resync", 1.0)
    for _ in range(3):
        await project.reconciler.run_pass("docker:shop-web-1", resync)
    assert project.hints.asked.count(("docker:shop-db-1", resync)) == 1
