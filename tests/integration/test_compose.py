"""A Compose project that Sidecar looks after: Compose finds its work in order, and people may interfere at any time.

Compose 2.26 knows its containers by their labels, so that it takes the old one that is put aside for one of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.stack import Stack, version_of
from tests.testbed.engine import Engine
from tests.testbed.errors import PartError
from tests.testbed.images import Behaviour
from tests.testbed.registry import Registry

SHOP = {
    "web": {"volumes": ["/data"]},
    "worker": {"depends_on": {"web": {"condition": "service_healthy"}}},
    "pair": {"deploy": {"replicas": 2}},
}

Make = Callable[..., Stack]


@pytest.fixture
def make(engine_swept: Engine, registry: Callable[..., Registry], tmp_path: Path) -> Iterator[Make]:
    """Bring a project of these services up, with a daemon of its own that looks after it."""
    made: list[Stack] = []

    def make_stack(*services: str, name: str = "shop", **more: str) -> Stack:
        chosen = {service: {**SHOP[service], **more} for service in services}
        made.append(Stack.make(engine_swept, registry, tmp_path / name, chosen, name=name))
        return made[-1]

    yield make_stack
    for stack in made:
        stack.daemon.kill()


def in_its_gate(make: Make, name: str = "shop") -> Stack:
    """Bring version 2 of a service into its gate; it declares a volume that version 1 did not have."""
    stack = make("web", name=name)
    stack.push("web", "2", Volumes={"/cache": {}})
    stack.begins_gate("web", "2")
    return stack


def side_by_side(make: Make, commands: Sequence[str], act: Callable[[Stack, str], None]) -> list[Stack]:
    """Do something to a project each in its gate, at once: most of it is waiting."""

    def one(number: int, command: str) -> Stack:
        stack = in_its_gate(make, f"shop{number}")
        try:
            act(stack, command)
        except AssertionError as error:
            message = f"{command!r} in the gate: {error}"
            raise AssertionError(message) from error
        return stack

    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(one, range(len(commands)), commands))


# --- nobody interferes ----------------------------------------------------------------------------------------------


def test_compose_finds_an_updated_project_in_order(make: Make) -> None:
    """After updates of every service, replicas too, `docker compose up` recreates and changes nothing."""
    stack = make(*SHOP)
    for service in SHOP:
        stack.open_gate(service, "2")
        stack.push(service, "2", Volumes={"/cache": {}})
    stack.until_it_runs(web_1="web-2", worker_1="worker-2", pair_1="pair-2", pair_2="pair-2")
    before = stack.ids()
    stack.compose("up", "--detach")
    assert stack.ids() == before
    stack.expect_nothing_left()


def test_an_updated_project_is_compose_s_own_as_before(make: Make) -> None:
    """Compose lists it, makes more replicas of the new image and fewer again, and takes all of it down."""
    stack = make("pair")
    stack.open_gate("pair", "2")
    stack.push("pair", "2")
    stack.until_it_runs(pair_1="pair-2", pair_2="pair-2")
    listed = [json.loads(line) for line in stack.compose("ps", "--all", "--format=json").splitlines()]
    shown = {each["Name"]: (each["State"], each["Health"]) for each in listed}
    assert shown == dict.fromkeys(("shop-pair-1", "shop-pair-2"), ("running", "healthy"))
    before = stack.ids()
    stack.compose("up", "--detach", "--no-recreate", "--scale", "pair=3")
    assert stack.versions() == {f"pair-{number}": "pair-2" for number in (1, 2, 3)}
    stack.compose("up", "--detach", "--scale", "pair=1")
    assert stack.ids() == {"shop-pair-1": before["shop-pair-1"]}
    stack.compose("down", "--volumes")
    assert stack.ids() == {}
    assert stack.engine.api.get("/networks", filters={"label": ["com.docker.compose.project=shop"]}) == []
    assert not stack.engine.api.get("/volumes")["Volumes"]


def test_what_compose_makes_for_a_moment_is_not_spoken_of(make: Make) -> None:
    """While it recreates a container there is one more, under a name that it makes up; of that nothing is told."""
    stack = make("web")
    target = f"docker:{stack.name}-web-1"

    def looks() -> int:
        return len([line for line in stack.daemon.lines("target.kept") if line["cause"] == "engine"])

    stack.daemon.until_told("target.kept", cause="webhook")  # or it would take what the engine tells along
    before = looks()
    stack.compose("up", "--detach", "--force-recreate")
    stack.daemon.until(lambda: looks() > before, "what the engine tells has it looked at")
    assert {line["target"] for line in stack.daemon.lines() if "target" in line} == {target}


def test_compose_does_not_deploy_what_was_rolled_back(make: Make) -> None:
    """The reference names what runs again, so that Compose finds nothing newer."""
    stack = make("web")
    before = stack.ids()
    digest = stack.push("web", "2", Behaviour.UNHEALTHY, Volumes={"/cache": {}})
    stack.daemon.until_told("rollout.rolled_back", digest=digest)
    stack.compose("up", "--detach")
    assert stack.ids() == before
    assert stack.versions() == {"web-1": "web-1"}
    stack.expect_nothing_left()


def test_replicas_are_updated_one_by_one(make: Make) -> None:
    """The second begins when the first is through, and never before."""
    stack = make("pair")
    stack.push("pair", "2")
    first = f"docker:{stack.begins_gate('pair', '2')}"
    assert set(stack.versions().values()) == {"pair-1", "pair-2"}
    stack.open_gate("pair", "2")
    stack.until_it_runs(pair_1="pair-2", pair_2="pair-2")
    told = [line for line in stack.daemon.lines() if line["event"] in {"rollout.started", "rollout.succeeded"}]
    second = f"docker:{stack.name}-pair-2"
    assert [(line["event"], line["target"]) for line in told] == [
        ("rollout.started", first),
        ("rollout.succeeded", first),
        ("rollout.started", second),
        ("rollout.succeeded", second),
    ]
    stack.expect_nothing_left()


def test_replicas_stop_at_the_first_that_fails(make: Make) -> None:
    """The other is held, and is never stopped."""
    stack = make("pair")
    before = {name: each["State"]["StartedAt"] for name, each in stack.inspects().items()}
    digest = stack.push("pair", "2", Behaviour.UNHEALTHY)
    failed = stack.daemon.until_told("rollout.rolled_back", digest=digest)
    (other,) = {f"docker:{name}" for name in before} - {failed["target"]}
    stack.daemon.until_told("target.held", target=other, digest=digest)
    stack.until_it_runs(pair_1="pair-1", pair_2="pair-1")
    after = {name: each["State"]["StartedAt"] for name, each in stack.inspects().items()}
    assert [f"docker:{name}" for name in before if before[name] != after[name]] == [failed["target"]]
    assert len(stack.daemon.lines("rollout.started")) == 1
    stack.expect_nothing_left()


def test_a_dependency_is_updated_before_what_depends_on_it(make: Make) -> None:
    """Both were pushed, the dependent first: it waits until the other has passed its gate."""
    stack = make("web", "worker")
    stack.daemon.kill()
    stack.push("worker", "2")
    stack.push("web", "2")
    stack.daemon.start()
    stack.begins_gate("web", "2")
    waiting = f"docker:{stack.name}-worker-1"
    stack.daemon.post("/api/v1/updates", {"what": waiting})
    stack.daemon.until_told("target.held", target=waiting, digest=stack.pushed["worker", "2"])
    assert stack.versions() == {"web-1": "web-2", "worker-1": "worker-1"}
    stack.open_gate("worker", "2")
    stack.open_gate("web", "2")
    stack.until_it_runs(web_1="web-2", worker_1="worker-2")
    order = [line["target"] for line in stack.daemon.lines("rollout.succeeded")]
    assert order == [f"docker:{stack.name}-web-1", waiting]
    stack.expect_nothing_left()


# --- somebody interferes, in the gate -------------------------------------------------------------------------------


def test_what_people_do_in_the_gate_leaves_the_service_running(make: Make) -> None:
    """Compose makes its own container, or starts the old one as well: in the end what was pushed runs, and alone.

    `--force-recreate` removes both containers, then fails for a name, and leaves a third without its own.
    """

    def act(stack: Stack, command: str) -> None:
        with suppress(PartError):
            stack.compose(*command.split())
        stack.open_gate("web", "2")
        stack.until_it_runs(web_1="web-2")

    commands = ("up --detach", "start", "restart", "up --detach --force-recreate")
    for stack in side_by_side(make, commands, act):
        stack.expect_nothing_left()


def test_the_old_one_does_not_run_beside_the_new_one(make: Make) -> None:
    """Started by Compose it is stopped again while the gate is still open: both have the same volumes."""

    def act(stack: Stack, command: str) -> None:
        stack.compose(*command.split())
        parked = f"{stack.name}-web-1.sidecar-old"
        stack.daemon.until(lambda: stack.inspects()[parked]["State"]["Status"] == "exited", "the old one is stopped")
        assert stack.daemon.lines("rollout.finishing") == []
        assert stack.versions() == {"web-1": "web-2"}

    side_by_side(make, ("start", "restart"), act)


def test_what_people_take_down_in_the_gate_stays_down(make: Make) -> None:
    """Neither container is made again and no volume of the new one is left; the data of the old one are not ours."""
    data = set()

    def act(stack: Stack, command: str) -> None:
        parked = stack.inspects()[f"{stack.name}-web-1.sidecar-old"]
        data.update(mount["Name"] for mount in parked["Mounts"] if mount["Type"] == "volume")
        if command.startswith("docker"):
            stack.engine.docker(*command.split()[1:], f"{stack.name}-web-1")
        else:
            stack.compose(*command.split())
        stack.daemon.until_told("rollout.abandoned")
        stack.daemon.until_told("target.kept", reason="it does not exist any more")
        assert stack.ids() == {}
        assert stack.daemon.lines("pass.crashed") == []

    commands = ("down", "down --volumes", "rm --stop --force", "docker rm --force")
    stack, *_ = side_by_side(make, commands, act)
    assert len(data) == len(commands)
    assert stack.unused_volumes() <= data


def test_what_people_stop_in_the_gate_stays_stopped(make: Make) -> None:
    """The update is taken back and nothing is rejected; started again, the service is updated."""
    stack = make("web", restart="unless-stopped")
    stack.push("web", "2", Volumes={"/cache": {}})
    stack.begins_gate("web", "2")
    stack.compose("stop")
    stack.daemon.until_told("rollout.rolled_back")
    stack.daemon.until_told("target.held", count=2)
    (only,) = stack.inspects().values()
    assert only["State"]["Status"] == "exited"
    assert version_of(only) == "shop-web-1"
    assert only["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    stack.expect_nothing_left()
    stack.open_gate("web", "2")
    stack.compose("start")
    stack.until_it_runs(web_1="web-2")
    stack.expect_nothing_left()


def test_compose_makes_again_what_was_removed_in_the_gate(make: Make) -> None:
    """On what ran before, which the reference names until a gate is passed; then it is updated."""
    stack = in_its_gate(make)
    stack.engine.docker("rm", "--force", f"{stack.name}-web-1")
    stack.compose("up", "--detach")
    assert version_in_place(stack) == "web-1"
    stack.open_gate("web", "2")
    stack.until_it_runs(web_1="web-2")
    stack.expect_nothing_left()


def test_the_old_one_may_be_removed_in_the_gate(make: Make) -> None:
    """The rollout goes on; a rollback would make it again from the journal."""
    stack = in_its_gate(make)
    stack.engine.docker("rm", "--force", f"{stack.name}-web-1.sidecar-old")
    stack.open_gate("web", "2")
    stack.until_it_runs(web_1="web-2")
    assert len(stack.daemon.lines("rollout.started")) == 1
    stack.expect_nothing_left()


def version_in_place(stack: Stack) -> str | None:
    """Give the version that runs now, under whatever name."""
    return next(iter(stack.versions().values()), None)
