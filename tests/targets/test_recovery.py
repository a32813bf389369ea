"""The commands that put an old container back by hand follow from what the engine shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.image import Digest
from sidecar.core.rollout import Phase, Revision, Rollout
from sidecar.core.target import State
from sidecar.targets.dependents import Beside, Dependent
from sidecar.targets.recovery import recovery, spec_of, spec_of_rollout
from sidecar.targets.sequence import Slot, Slots
from sidecar.targets.spec import CreateRequest

ALWAYS, NO = {"Name": "always"}, {"Name": "no"}
SECRET = "PASSWORD=hunter2"


def request(version: str) -> CreateRequest:
    body = {"Image": "me/app:1", "Env": [SECRET], "Labels": {"version": version}}
    return CreateRequest(body=body | {"HostConfig": {}, "NetworkingConfig": {"EndpointsConfig": {}}})


ROLLOUT = Rollout(
    id="r",
    target_id="docker:web",
    service="web",
    repository="docker.io/me/app",
    ref="docker.io/me/app:1",
    cause="webhook",
    started_at=0.0,
    min_ready_seconds=1,
    deadline_seconds=9,
    platform="linux/amd64",
    from_=Revision(digest=Digest(f"sha256:{'1' * 64}"), image_id="sha256:old", instance="old"),
    to=Revision(digest=Digest(f"sha256:{'2' * 64}"), image_id="sha256:new", instance="new"),
    run_state=State.RUNNING,
    phase=Phase.FAILED,
    plan={"restart_policy": ALWAYS, "restore": request("old").to_json(), "request": request("new").to_json()},
)
OLD = Slot(id="old", image_id="sha256:old", state=State.EXITED, restart_policy=NO)
NEW = Slot(id="new", image_id="sha256:new", state=State.RUNNING, restart_policy=ALWAYS)
DEPENDENT = Dependent(name="d", id="d-1", image_id="sha256:d", run_state=State.RUNNING)
SHOW = "sidecar show docker:web --spec | sh"


def beside(state: State) -> Beside:
    return Beside(id="d-1", image_id="sha256:d", state=state)


def put_back(slots: Slots, **changed: object) -> list[str]:
    return recovery(replace(ROLLOUT, **changed), replace(slots, tag_image=slots.tag_image or "sha256:old"))


@pytest.mark.parametrize(
    "slots, commands",
    [
        (Slots(current=OLD), ["docker update --restart always web", "docker start web"]),
        (Slots(current=replace(OLD, restart_policy=ALWAYS)), ["docker start web"]),
        (Slots(current=replace(OLD, state=State.RUNNING, restart_policy=ALWAYS)), ["docker restart web"]),
        (Slots(current=replace(OLD, auto_remove=True)), ["docker start web"]),
        (
            Slots(current=NEW, parked=OLD, tag_image="sha256:new"),
            [
                "docker rm --force web",
                "docker tag sha256:old me/app:1",
                "docker rename web.sidecar-old web",
                "docker update --restart always web",
                "docker start web",
            ],
        ),
        (
            Slots(
                current=replace(OLD, restart_policy=ALWAYS), candidate=NEW, tag_image="sha256:new", tag_is_shared=True
            ),
            ["docker rm --force web.sidecar-new", "docker start web"],
        ),
        (
            Slots(current=NEW, tag_image="sha256:new", tag_is_shared=True),
            ["docker rm --force web", "docker tag sha256:old me/app:1", SHOW],
        ),
        (
            Slots(current=replace(NEW, id="0123456789abcdef", is_misnamed=True)),
            ["docker rm --force 0123456789ab", SHOW],
        ),
        (Slots(), [SHOW]),
    ],
)
def test_whatever_stands_in_the_way_goes_and_the_old_one_comes_back(slots, commands):
    """In the order that a person types it: out of the way, the tag, the name, the restart policy, the start."""
    assert put_back(slots) == commands


@pytest.mark.parametrize(
    "run_state, state, commands",
    [
        (State.EXITED, State.EXITED, ["docker update --restart always web"]),
        (State.PAUSED, State.EXITED, ["docker update --restart always web", "docker start web", "docker pause web"]),
        (
            State.RUNNING,
            State.PAUSED,
            ["docker update --restart always web", "docker unpause web", "docker restart web"],
        ),
    ],
)
def test_it_is_left_in_the_state_that_it_had(run_state, state, commands):
    """What did not run is not started, and what was paused is paused again."""
    assert put_back(Slots(current=replace(OLD, state=state)), run_state=run_state) == commands


@pytest.mark.parametrize(
    "dependent, commands",
    [
        (replace(DEPENDENT, current=beside(State.EXITED)), ["docker start d"]),
        (replace(DEPENDENT, current=beside(State.RUNNING)), []),
        (replace(DEPENDENT, current=beside(State.RUNNING), shares_namespace=True), ["docker restart d"]),
        (
            replace(DEPENDENT, candidate=beside(State.CREATED)),
            ["docker rename d.sidecar-new d", "docker start d"],
        ),
        (DEPENDENT, ["# d was made from a container that is gone: make it again after that"]),
        (replace(DEPENDENT, current=beside(State.EXITED), run_state=State.EXITED), []),
        (replace(DEPENDENT, current=beside(State.EXITED), is_remade=False), []),
    ],
)
def test_what_goes_with_it_runs_again(dependent, commands):
    """After the old one: started, or named and started, or said to be lost."""
    old = replace(OLD, restart_policy=ALWAYS)
    assert put_back(Slots(current=old, dependents=(dependent,))) == ["docker start web", *commands]


def test_what_was_made_from_one_that_is_gone_is_said_to_be_made_again():
    """It has something of the failed one, which has to go."""
    found = put_back(Slots(current=NEW, dependents=(replace(DEPENDENT, current=beside(State.RUNNING)),)))
    assert found == [
        "docker rm --force web",
        SHOW,
        "# d was made from a container that is gone: make it again after that",
    ]


@pytest.mark.parametrize("slots", [Slots(), Slots(current=NEW), Slots(current=OLD), Slots(current=NEW, parked=OLD)])
def test_no_command_holds_a_secret(slots):
    """They go into the log, and a container's environment does not."""
    assert "hunter2" not in repr(put_back(slots))


def test_without_a_plan_there_is_nothing_to_restore():
    """A rollout whose plan is not kept any more says nothing of restart policies, and nothing makes it again."""
    assert put_back(Slots(current=OLD), plan=None) == ["docker start web"]
    assert spec_of_rollout(replace(ROLLOUT, plan=None), "web", api=(1, 45)) is None


@pytest.mark.parametrize(
    "phase, is_broken, version, image_id",
    [
        (Phase.FAILED, False, "old", "sha256:old"),
        (Phase.ROLLED_BACK, False, "old", "sha256:old"),
        (Phase.UPDATING, False, "old", "sha256:old"),
        (Phase.FINISHING, True, "old", "sha256:old"),
        (Phase.FINISHING, False, "new", "sha256:new"),
        (Phase.SUCCEEDED, False, "new", "sha256:new"),
    ],
)
def test_what_makes_a_container_again_that_is_gone(phase, is_broken, version, image_id):
    """The new one where it passed its gate, the old one otherwise; on the image that it had."""
    spec = spec_of_rollout(replace(ROLLOUT, phase=phase, is_broken=is_broken), "web", api=(1, 45))
    assert spec is not None
    assert spec.request["body"]["Labels"] == {"version": version}
    assert spec.commands == (
        f"docker tag {image_id} me/app:1",
        f"docker run --detach --name web --env {SECRET} --label version={version} me/app:1",
    )
    assert "hunter2" not in repr(spec)


@pytest.mark.parametrize("reference", ["sha256:" + "a" * 64, f"me/app@sha256:{'a' * 64}"])
def test_a_reference_that_can_mean_nothing_else_is_not_tagged(reference):
    """An id and a digest always name the same image."""
    made = replace(request("old"), body=request("old").body | {"Image": reference, "Env": []})
    spec = spec_of(made, "web", image_id="sha256:old", api=(1, 45), is_started=False)
    assert spec.commands[-1] == f"docker create --name web --label version=old {reference}"
    assert not any(command.startswith("docker tag") for command in spec.commands)


def test_what_compose_copied_into_it_is_said_to_be_missing():
    """No command brings the files back; a name of theirs does not end the comment."""
    spec = spec_of(request("old"), "web", image_id=None, api=(1, 45), is_started=True, copies=["/a\nb"])
    assert spec.commands[0] == "# not in it: /a?b, which Compose copied into the container"
