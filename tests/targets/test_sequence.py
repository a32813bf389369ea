"""Which engine call is next, from what is in the three slots: a table that can be read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.core.policy import Strategy
from sidecar.core.rollout import Phase, Revision, Rollout
from sidecar.core.target import State
from sidecar.targets.calls import Restart
from sidecar.targets.dependents import Beside, Dependent
from sidecar.targets.sequence import (
    Adopt,
    Blocked,
    Call,
    Connect,
    Create,
    Disconnect,
    KeepPrevious,
    MoveTag,
    Of,
    Pause,
    Remove,
    Rename,
    RunHook,
    SetRestartPolicy,
    Slot,
    Slots,
    Start,
    Stop,
    Unpause,
    is_at_rest,
    next_call,
)
from tests.core.values import NEW, rollout

ALWAYS, NO = {"Name": "always"}, {"Name": "no"}


def slot(
    ident: str, state: State = State.RUNNING, policy: dict[str, str] = ALWAYS, *, is_complete: bool = True
) -> Slot:
    """Make a container of the old image, or of the new one by its name."""
    image = "new-image" if ident.startswith("new") else "old-image"
    return Slot(id=ident, image_id=image, state=state, restart_policy=policy, is_complete=is_complete)


OLD_UP, OLD_DOWN = slot("old-container"), slot("old-container", State.EXITED)
OLD_PARKED = slot("old-container", State.EXITED, NO)
NEW_UP, NEW_MADE = slot("new-container"), slot("new-container", State.CREATED)
MADE_OF_ANOTHER = replace(slot("x", State.CREATED), image_id="another-image")
STALE_UP, STALE_DOWN = slot("stale"), slot("stale", State.EXITED)

MAKING = rollout(to=Revision(digest=NEW, image_id="new-image"), plan={"restart_policy": ALWAYS})
MADE = rollout(plan={"restart_policy": ALWAYS})
OVERTAKING = replace(MAKING, superseded="stale")
FINISHING = replace(MADE, phase=Phase.FINISHING, goal_started_at=1.0)
BACK = replace(MADE, phase=Phase.ROLLING_BACK)
PAUSED = {"run_state": State.PAUSED}
STOPPED = {"run_state": State.EXITED}


def shown(
    current: Slot | None = None, candidate: Slot | None = None, parked: Slot | None = None, **more: object
) -> Slots:
    values: dict[str, object] = {"tag_image": "old-image", "previous_image": None}
    return Slots(current=current, candidate=candidate, parked=parked, **(values | more))  # type: ignore[arg-type]


UPDATING = [
    ("the candidate is made while the old one runs", MAKING, shown(OLD_UP), Create()),
    ("a candidate that was not recorded is ours", MAKING, shown(OLD_UP, slot("new-x", State.CREATED)), Adopt("new-x")),
    (
        "unless not all was done to it: then it is made again",
        MAKING,
        shown(OLD_UP, slot("new-x", State.CREATED, is_complete=False)),
        Remove("new-x", volumes=True),
    ),
    (
        "one that the engine made once the tag was back is of the old image, and is made again",
        MAKING,
        shown(OLD_UP, slot("x", State.CREATED)),
        Remove("x", volumes=True),
    ),
    (
        "also while the old one is parked",
        replace(MAKING, superseded="stale"),
        shown(None, slot("x", State.CREATED), OLD_PARKED),
        Remove("x", volumes=True),
    ),
    (
        "unless both are of one image: then it is the candidate",
        replace(MAKING, to=Revision(digest=NEW, image_id="old-image")),
        shown(OLD_UP, slot("x", State.CREATED)),
        Adopt("x"),
    ),
    ("one that was started is somebody's", MAKING, shown(OLD_UP, slot("x", State.EXITED)), Blocked("x")),
    ("and what is there without the old one", MAKING, shown(None, slot("x", State.CREATED)), Blocked("x")),
    ("a stranger in its place blocks", MAKING, shown(OLD_UP, MADE_OF_ANOTHER), Blocked("x")),
    (
        "one that is not connected to all its networks is made again",
        MADE,
        shown(OLD_UP, slot("new-container", State.CREATED, is_complete=False)),
        Remove("new-container", volumes=True),
    ),
    (
        "the tag goes back before anything stops",
        MADE,
        shown(OLD_UP, NEW_MADE, tag_image="new-image"),
        MoveTag("old-image"),
    ),
    (
        "also from what was overtaken",
        MADE,
        shown(OLD_UP, NEW_MADE, tag_image="stale-image", tag_is_overtaken=True),
        MoveTag("old-image"),
    ),
    (
        "a tag that another target moved stays",
        MADE,
        shown(OLD_UP, NEW_MADE, tag_image="new-image", tag_is_shared=True),
        Stop("old-container"),
    ),
    ("the old one is stopped", MADE, shown(OLD_UP, NEW_MADE), Stop("old-container")),
    (
        "one between two restarts is stopped as well",
        MADE,
        shown(slot("old-container", State.RESTARTING), NEW_MADE),
        Stop("old-container"),
    ),
    (
        "a paused one has to go on before it can be stopped",
        MADE,
        shown(slot("old-container", State.PAUSED), NEW_MADE),
        Unpause("old-container"),
    ),
    ("stopped, it loses its restart policy", MADE, shown(OLD_DOWN, NEW_MADE), SetRestartPolicy("old-container")),
    ("then its name", MADE, shown(OLD_PARKED, NEW_MADE), Rename("old-container", is_parked=True)),
    (
        "without a restart policy, its name at once",
        MADE,
        shown(slot("old-container", State.EXITED, {"Name": ""}), NEW_MADE),
        Rename("old-container", is_parked=True),
    ),
    ("the new one gets the name", MADE, shown(None, NEW_MADE, OLD_PARKED), Rename("new-container")),
    ("and is started", MADE, shown(NEW_MADE, None, OLD_PARKED), Start("new-container")),
    ("it runs: nothing to do but wait", MADE, shown(NEW_UP, None, OLD_PARKED), None),
    (
        "a parked one that somebody started is stopped",
        MADE,
        shown(NEW_UP, None, slot("old-container", State.RUNNING, NO)),
        Stop("old-container"),
    ),
    ("a candidate that vanished is made again", MADE, shown(None, None, OLD_PARKED), Create()),
    ("when everything vanished before it ran, it is made again", MADE, shown(), Create()),
    ("what was stopped is not started", replace(MADE, **STOPPED), shown(NEW_MADE, None, OLD_PARKED), None),  # type: ignore[arg-type]
    ("the newer candidate is made beside the older one", OVERTAKING, shown(STALE_UP, None, OLD_PARKED), Create()),
    (
        "an older candidate that never ran is removed first",
        OVERTAKING,
        shown(OLD_UP, STALE_DOWN),
        Remove("stale", volumes=True),
    ),
    (
        "the older one is stopped",
        replace(MADE, superseded="stale"),
        shown(STALE_UP, NEW_MADE, OLD_PARKED),
        Stop("stale"),
    ),
    (
        "and removed with the volumes of its own making",
        replace(MADE, superseded="stale"),
        shown(STALE_DOWN, NEW_MADE, OLD_PARKED),
        Remove("stale", volumes=True),
    ),
]

FINISHES = [
    ("the tag moves", FINISHING, shown(NEW_UP, None, OLD_PARKED), MoveTag("new-image")),
    (
        "the old image is kept",
        FINISHING,
        shown(NEW_UP, None, OLD_PARKED, tag_image="new-image"),
        KeepPrevious("old-image"),
    ),
    (
        "the old one is removed last, without its volumes",
        FINISHING,
        shown(NEW_UP, None, OLD_PARKED, tag_image="new-image", previous_image="old-image"),
        Remove("old-container", volumes=False),
    ),
    (
        "a parked one that somebody started is stopped first",
        FINISHING,
        shown(NEW_UP, None, OLD_UP, tag_image="new-image", previous_image="old-image"),
        Stop("old-container"),
    ),
    (
        "what was paused is paused again",
        replace(FINISHING, **PAUSED),  # type: ignore[arg-type]
        shown(NEW_UP, None, OLD_PARKED, tag_image="new-image", previous_image="old-image"),
        Pause("new-container"),
    ),
    (
        "an older candidate is cleared away",
        replace(FINISHING, superseded="stale"),
        shown(NEW_UP, STALE_DOWN, OLD_PARKED, tag_image="new-image", previous_image="old-image"),
        Remove("stale", volumes=True),
    ),
    ("then there is nothing to do", FINISHING, shown(NEW_UP, tag_image="new-image", previous_image="old-image"), None),
    (
        "an image without a past has nothing to keep",
        replace(FINISHING, from_=Revision()),
        shown(NEW_UP, tag_image="new-image"),
        None,
    ),
]

ROLLS_BACK = [
    ("the failed one is stopped", BACK, shown(NEW_UP, None, OLD_PARKED), Stop("new-container")),
    (
        "and removed with the volumes of its own making",
        BACK,
        shown(slot("new-container", State.EXITED), None, OLD_PARKED),
        Remove("new-container", volumes=True),
    ),
    ("a candidate that never ran is removed", BACK, shown(OLD_UP, NEW_MADE), Remove("new-container", volumes=True)),
    ("a tag that strayed goes back", BACK, shown(None, None, OLD_PARKED, tag_image="new-image"), MoveTag("old-image")),
    ("the old one gets its name back", BACK, shown(None, None, OLD_PARKED), Rename("old-container")),
    ("then its restart policy", BACK, shown(OLD_PARKED), SetRestartPolicy("old-container", is_own=True)),
    ("then it is started", BACK, shown(OLD_DOWN), Start("old-container")),
    ("it runs: nothing to do but wait", BACK, shown(OLD_UP), None),
    (
        "one that is frozen goes on for its gate",
        BACK,
        shown(slot("old-container", State.PAUSED)),
        Unpause("old-container"),
    ),
    (
        "what was paused is paused after its gate",
        replace(BACK, settled=True, **PAUSED),
        shown(OLD_UP),
        Pause("old-container"),
    ),  # type: ignore[arg-type]
    (
        "and then there is nothing to do",
        replace(BACK, settled=True, **PAUSED),  # type: ignore[arg-type]
        shown(slot("old-container", State.PAUSED)),
        None,
    ),
    ("what was stopped is not started", replace(BACK, **STOPPED), shown(OLD_DOWN), None),  # type: ignore[arg-type]
    ("an old one that vanished is made again before the failed one goes", BACK, shown(NEW_UP), Create(is_old=True)),
    ("once made it is ours", BACK, shown(NEW_UP, slot("old-x", State.CREATED)), Adopt("old-x", is_old=True)),
    (
        "unless not all was done to it: then it is made again",
        BACK,
        shown(NEW_UP, slot("old-x", State.CREATED, is_complete=False)),
        Remove("old-x", volumes=True),
    ),
    (
        "one that the engine made of the new image is made again",
        BACK,
        shown(NEW_UP, slot("new-x", State.CREATED)),
        Remove("new-x", volumes=True),
    ),
    ("a stranger in its place blocks", BACK, shown(NEW_UP, MADE_OF_ANOTHER), Blocked("x")),
    ("made again, it gets the name", BACK, shown(None, slot("old-container", State.CREATED)), Rename("old-container")),
    ("a failed candidate makes room for it", BACK, shown(None, NEW_MADE), Remove("new-container", volumes=True)),
]

STRANGER = slot("somebody")
NAMED, STOP_NEW = Rename("new-container"), Stop("new-container")
SELF_UP = replace(slot("old-container", State.RUNNING, NO), auto_remove=True)
SELF_GONE = replace(SELF_UP, state=State.EXITED)
SPARE = replace(SELF_UP, id="old-spare", state=State.CREATED)
SELF_NEW = replace(NEW_MADE, auto_remove=True)
BESIDE = replace(MADE, strategy=Strategy.START_FIRST)
PASSED, DRAINED = replace(BESIDE, settled=True), replace(BESIDE, settled=True, drained_at=1.0)
NAMELESS = replace(NEW_UP, unnamed=("a", "b"))
OFF = replace(NEW_UP, missing=("a",), is_complete=False)
STARTED_FIRST = [
    ("it is started beside the old one", BESIDE, shown(OLD_UP, NEW_MADE), Start("new-container")),
    ("and waited for", BESIDE, shown(OLD_UP, NEW_UP), None),
    ("what it has no names on it leaves", PASSED, shown(OLD_UP, NAMELESS), Disconnect("new-container", "a")),
    ("what it has left it joins again", PASSED, shown(OLD_UP, OFF), Connect("new-container", "a")),
    ("with its names both answer for a while", PASSED, shown(OLD_UP, NEW_UP), None),
    ("then the old one is stopped", DRAINED, shown(OLD_UP, NEW_UP), Stop("old-container")),
    ("not before it has its names, again", DRAINED, shown(OLD_UP, NAMELESS), Disconnect("new-container", "a")),
    ("the old one loses its restart policy", DRAINED, shown(OLD_DOWN, NEW_UP), SetRestartPolicy("old-container")),
    ("and its name", DRAINED, shown(OLD_PARKED, NEW_UP), Rename("old-container", is_parked=True)),
    ("which the new one gets", DRAINED, shown(None, NEW_UP, OLD_PARKED), NAMED),
    (
        "not before it has its names, where the old one was removed",
        PASSED,
        shown(None, NAMELESS),
        Disconnect("new-container", "a"),
    ),
    ("and its networks", PASSED, shown(None, OFF), Connect("new-container", "a")),
    (
        "one that never ran and is not connected is made again",
        BESIDE,
        shown(OLD_UP, slot("new-container", State.CREATED, is_complete=False)),
        Remove("new-container", volumes=True),
    ),
    ("taken back, the old one goes on", replace(BESIDE, phase=Phase.ROLLING_BACK), shown(OLD_UP, NEW_UP), STOP_NEW),
]
SELF_REMOVING = [
    (
        "what stands in for it is made while it runs",
        MADE,
        shown(SELF_UP, SELF_NEW),
        Create(is_old=True, is_parked=True),
    ),
    (
        "for a paused one as well",
        MADE,
        shown(replace(SELF_UP, state=State.PAUSED), SELF_NEW),
        Create(is_old=True, is_parked=True),
    ),
    (
        "what is only half made is made again",
        MADE,
        shown(SELF_UP, SELF_NEW, replace(SPARE, is_complete=False)),
        Remove("old-spare", volumes=True),
    ),
    ("then it is stopped", MADE, shown(SELF_UP, SELF_NEW, SPARE), Stop("old-container")),
    ("and seen off", MADE, shown(SELF_GONE, SELF_NEW, SPARE), Remove("old-container", volumes=False)),
    ("what stands in for it takes its part", MADE, shown(None, SELF_NEW, SPARE), Adopt("old-spare", is_old=True)),
    ("once it does, the new one gets the name", MADE, shown(None, SELF_NEW, replace(SPARE, id="old-container")), NAMED),
    (
        "one that never ran is parked like any other",
        replace(MADE, **STOPPED),  # type: ignore[arg-type]
        shown(replace(SELF_UP, state=State.CREATED), SELF_NEW),
        Rename("old-container", is_parked=True),
    ),
    (
        "where it goes on running nothing stands in",
        BACK,
        shown(SELF_UP, None, SPARE),
        Remove("old-spare", volumes=True),
    ),
    ("nor where a person made another", MADE, shown(STRANGER, None, SPARE), Remove("old-spare", volumes=True)),
]

REPLACEMENT = replace(STRANGER, is_misnamed=True)
START, NAME = Start("somebody"), Rename("somebody")
ANEW, RAN = Of("web", Restart("asking")), {"pre-update": 1.0}
ASKING = Dependent(
    name="web",
    id="asking",
    image_id="other",
    run_state=State.RUNNING,
    is_remade=False,
    current=Beside(id="asking", image_id="other", state=State.RUNNING),
)
GOING = replace(ASKING, name="net", is_remade=True, current=Beside(id="asking", image_id="other", state=State.EXITED))
HOOKED = {"hooks": {"pre-update": {}, "post-update": {}}, "restart_policy": ALWAYS}
DONE: dict[str, Any] = {"tag_image": "new-image", "previous_image": "old-image"}
ALONG = [
    (
        "what goes along is stopped first",
        MADE,
        shown(OLD_UP, NEW_MADE, dependents=(replace(GOING, current=ASKING.current),)),
        Of("net", Stop("asking")),
    ),
    ("what goes along is made again", FINISHING, shown(NEW_UP, dependents=(GOING,), **DONE), Of("net", Create())),
    ("who asks for it is started anew", FINISHING, shown(NEW_UP, dependents=(ASKING,), **DONE), ANEW),
    ("put back, what went along is started", BACK, shown(OLD_UP, dependents=(GOING,)), Of("net", Start("asking"))),
    (
        "and after its gate who asks for it",
        replace(BACK, settled=True, goal_starts=1),
        shown(OLD_UP, dependents=(ASKING,)),
        ANEW,
    ),
    ("where it was not stopped nobody is", replace(BACK, settled=True), shown(OLD_UP, dependents=(ASKING,)), None),
    ("what a person made has them as well", MADE, shown(STRANGER, dependents=(GOING,)), Of("net", Create())),
    (
        "so has the one that a person put back",
        replace(MADE, goal_started_at=1.0),
        shown(OLD_UP, dependents=(GOING,)),
        Of("net", Start("asking")),
    ),
    (
        "a hook comes before all else",
        replace(MAKING, plan=HOOKED),
        shown(OLD_UP),
        RunHook("old-container", "pre-update"),
    ),
    (
        "while it is of use it is not run again",
        replace(MAKING, plan=HOOKED | {"ran": RAN}),
        shown(OLD_UP, now=9.0),
        Create(),
    ),
    (
        "later it is",
        replace(MAKING, plan=HOOKED | {"ran": RAN}),
        shown(OLD_UP, now=99.0),
        RunHook("old-container", "pre-update"),
    ),
    ("not once it has begun", replace(OVERTAKING, plan=HOOKED), shown(OLD_UP), Create()),
    (
        "the other comes at the end",
        replace(FINISHING, plan=HOOKED),
        shown(NEW_UP, **DONE),
        RunHook("new-container", "post-update"),
    ),
    ("once", replace(FINISHING, plan=HOOKED | {"ran": {"post-update": 1.0}}), shown(NEW_UP, now=99.0, **DONE), None),
    ("and not in one that failed", replace(FINISHING, plan=HOOKED, is_broken=True), shown(NEW_UP, **DONE), None),
]
STOPPING = replace(MADE, run_state=State.EXITED)
PEOPLE = [
    ("our candidate goes", MADE, shown(STRANGER, NEW_MADE, OLD_PARKED), Remove("new-container", volumes=True)),
    ("a running one is stopped before", MADE, shown(STRANGER, NEW_UP), Stop("new-container")),
    (
        "the parked one goes, its volumes stay",
        MADE,
        shown(STRANGER, None, OLD_PARKED),
        Remove("old-container", volumes=False),
    ),
    (
        "taken down with its network, what we made of it goes",
        MADE,
        shown(None, NEW_MADE, is_taken_down=True),
        Remove("new-container", volumes=True),
    ),
    ("gone, with nothing of ours left, it stays gone", replace(MADE, goal_started_at=1.0), shown(), None),
    ("what is not ours is not touched", MADE, shown(STRANGER, slot("x"), slot("y")), None),
    (
        "gone after it ran, the parked one goes as well",
        replace(MADE, goal_started_at=1.0),
        shown(None, None, OLD_PARKED),
        Remove("old-container", volumes=False),
    ),
    (
        "a parked one that was started in its place gets its restart policy back",
        replace(MADE, goal_started_at=1.0),
        shown(None, None, slot("old-container", State.RUNNING, NO)),
        SetRestartPolicy("old-container", is_own=True),
    ),
    (
        "and then its name",
        replace(MADE, goal_started_at=1.0),
        shown(None, None, OLD_UP),
        Rename("old-container"),
    ),
    (
        "one that was put back gets its restart policy back",
        replace(MADE, goal_started_at=1.0),
        shown(slot("old-container", State.RUNNING, NO)),
        SetRestartPolicy("old-container", is_own=True),
    ),
    ("and is left as it is", replace(MADE, goal_started_at=1.0), shown(OLD_UP), None),
    ("what Compose left without a name is started", MADE, shown(replace(REPLACEMENT, state=State.CREATED)), START),
    ("and named", MADE, shown(REPLACEMENT), Rename("somebody")),
    ("but not started where nothing ran", STOPPING, shown(replace(REPLACEMENT, state=State.CREATED)), NAME),
]


@pytest.mark.parametrize(
    "rollout_, slots, call",
    [
        pytest.param(*row, id=rule)
        for rule, *row in [*UPDATING, *FINISHES, *ROLLS_BACK, *STARTED_FIRST, *SELF_REMOVING, *ALONG, *PEOPLE]
    ],
)
def test_the_next_call_follows_from_what_is_there(rollout_: Rollout, slots: Slots, call: Call | Blocked | None) -> None:
    """Each row of the table, by its rule."""
    assert next_call(rollout_, slots) == call


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.ROLLED_BACK, Phase.FAILED, Phase.SUPERSEDED, Phase.ABANDONED])
def test_a_final_phase_wants_nothing(phase: Phase) -> None:
    """Once it is over nothing is called."""
    assert next_call(replace(MADE, phase=phase), shown(NEW_UP)) is None


@pytest.mark.parametrize(
    "rollout_, slots, at_rest",
    [
        (MAKING, shown(OLD_UP), True),
        (MAKING, shown(OLD_UP, slot("new-x", State.CREATED)), False),
        (BACK, shown(), False),
        (MADE, shown(NEW_UP, None, OLD_PARKED), False),
        (MADE, shown(OLD_UP, NEW_MADE), False),
        (BACK, shown(OLD_UP), True),
        (BACK, shown(OLD_DOWN), True),
        (BACK, shown(OLD_PARKED), False),
        (FINISHING, shown(NEW_UP, tag_image="new-image", previous_image="old-image"), True),
        (FINISHING, shown(NEW_UP, tag_image="old-image", previous_image="old-image"), False),
        (MADE, shown(STRANGER), True),
        (MADE, shown(replace(STRANGER, state=State.CREATED)), True),
        (MADE, shown(REPLACEMENT), False),
        (MADE, shown(replace(REPLACEMENT, state=State.CREATED)), False),
        (MADE, shown(STRANGER, None, OLD_PARKED), False),
    ],
)
def test_at_rest_is_when_nothing_is_left_but_to_start(rollout_: Rollout, slots: Slots, at_rest: bool) -> None:
    """No candidate, nothing parked, restart policy and tag as they should be; not begun is at rest as well."""
    assert is_at_rest(rollout_, slots) is at_rest
