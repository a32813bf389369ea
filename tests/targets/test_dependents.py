"""What goes with a container that is replaced: which containers these are, and what is done with them next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.core.target import State
from sidecar.targets.calls import Blocked, Call, Create, Of, Pause, Remove, Rename, Restart, Start, Stop, Unpause
from sidecar.targets.dependents import (
    Beside,
    Dependent,
    clear,
    dependents_of,
    references,
    restart,
    restore,
    shares_namespace,
    stop,
)

Json = dict[str, Any]
ID = "db0ffee" + "0" * 57


def made(name: str, ident: str | None = None, **host: object) -> Json:
    return {"Id": ident or f"id-of-{name}", "Name": f"/{name}", "HostConfig": host}


def test_who_has_something_of_another_container_goes_with_it() -> None:
    """By id and by name, in each of the five ways; the container itself and strangers do not."""
    others = [
        made("net", NetworkMode=f"container:{ID}"),
        made("ipc", IpcMode="container:vpn"),
        made("pid", PidMode="container:vpn"),
        made("volumes", VolumesFrom=["vpn:ro"]),
        made("volumes-by-id", VolumesFrom=["data", "db0ffee0"]),
        made("link", Links=["/db:/link/db", "/vpn:/link/gate"]),
        made("none", NetworkMode="bridge", VolumesFrom=None, Links=None),
        made("stranger", VolumesFrom=["vpn2", "0ffee", "db"], Links=["/vpn2:/stranger/vpn"], IpcMode="shareable"),
        made("db"),  # its name is how our id begins
        made("vpn", ID, NetworkMode="container:vpn"),
    ]
    found = dependents_of(made("vpn", ID), others)
    assert [each["Name"] for each in found] == ["/ipc", "/link", "/net", "/pid", "/volumes", "/volumes-by-id"]


def test_who_has_something_of_one_that_goes_along_goes_along_after_it() -> None:
    """However far, and also where the names are the other way around; of two that have each other's, both."""
    chain = [
        made("a", IpcMode="container:z"),
        made("z", NetworkMode=f"container:{ID}", VolumesFrom=["m"]),
        made("m", VolumesFrom=["vpn"]),
        made("p", VolumesFrom=["vpn"], Links=["/q:/p/q"]),
        made("q", Links=["/p:/q/p"]),
    ]
    found = [each["Name"] for each in dependents_of(made("vpn", ID), chain)]
    assert sorted(found) == ["/a", "/m", "/p", "/q", "/z"]
    assert found.index("/m") < found.index("/z") < found.index("/a")


def test_references_are_read_from_five_options() -> None:
    """As the engine shows them: by name or id."""
    host = {"NetworkMode": "container:a", "IpcMode": "host", "PidMode": "container:b", "VolumesFrom": ["c:ro"]}
    assert references({**host, "Links": ["/d:/web/e"]}) == {"a", "b", "c", "d"}


def test_what_lives_in_anothers_namespace_is_told() -> None:
    """Network, IPC or PID; volumes and links are none."""
    assert shares_namespace({"PidMode": "container:b"})
    assert not shares_namespace({"NetworkMode": "bridge", "VolumesFrom": ["c"], "Links": ["/d:/web/e"]})


# --- what is done next ------------------------------------------------------------------------------------------------

OLD = Beside(id="old", image_id="image", state=State.RUNNING)
DOWN = replace(OLD, state=State.EXITED)
PAUSED = replace(OLD, state=State.PAUSED)
MADE = Beside(id="new", image_id="image", state=State.CREATED, references=frozenset({"goal"}))
UP = replace(MADE, state=State.RUNNING)
NET = Dependent(name="net", id="old", image_id="image", run_state=State.RUNNING, shares_namespace=True)
FREEZING = replace(NET, run_state=State.PAUSED)
ASKING = Dependent(name="web", id="web", image_id="image", run_state=State.RUNNING, is_remade=False)


@pytest.mark.parametrize(
    "each, call",
    [
        (replace(NET, current=OLD), Stop("old")),
        (replace(NET, current=PAUSED), Unpause("old")),
        (replace(NET, current=DOWN), None),
        (replace(NET, current=None), None),
        (replace(NET, current=replace(OLD, id="somebody")), None),
        (replace(ASKING, current=replace(OLD, id="web")), None),
    ],
)
def test_what_runs_and_goes_along_is_stopped_first(each: Dependent, call: Call | None) -> None:
    """Those last in line come first; what is not ours to stop, or only asks to be started anew, is left."""
    assert stop([each]) == (Of(each.name, call) if call else None)
    if call:
        assert stop([replace(NET, name="first", current=OLD), each]) == Of(each.name, call)


@pytest.mark.parametrize(
    "each, call",
    [
        (replace(NET, current=DOWN), Create()),
        (replace(NET, current=DOWN, candidate=MADE), Remove("old", volumes=False)),
        (replace(NET, current=OLD, candidate=MADE), Stop("old")),
        (replace(NET, candidate=MADE), Rename("new")),
        (replace(NET, current=MADE), Start("new")),
        (replace(NET, current=UP), None),
        (replace(NET, current=replace(MADE, state=State.EXITED), is_started=True), None),
        (replace(NET, current=MADE, run_state=State.EXITED), None),
        (replace(FREEZING, current=UP, is_started=True), Pause("new")),
        (replace(FREEZING, current=UP, is_paused=True), None),
        (replace(NET, current=DOWN, candidate=replace(MADE, is_complete=False)), Remove("new", volumes=True)),
        (replace(NET, current=DOWN, candidate=replace(MADE, references=frozenset({"x"}))), Remove("new", volumes=True)),
        (replace(NET, current=UP, candidate=replace(MADE, id="x")), Remove("x", volumes=True)),
        (replace(NET, current=DOWN, candidate=replace(MADE, image_id="other")), Blocked("new")),
        (NET, None),
        (replace(ASKING, current=DOWN), None),
    ],
)
def test_what_goes_along_is_made_again_against_the_new_one(each: Dependent, call: Call | Blocked | None) -> None:
    """Made while the old one is there, which goes without its volumes; named, started, and left as it was."""
    assert restore([each], goal="goal", is_replaced=True, is_up=True) == (Of(each.name, call) if call else None)


@pytest.mark.parametrize(
    "each, call",
    [
        (replace(NET, current=DOWN), Start("old")),
        (replace(NET, current=DOWN, is_started=True), None),
        (replace(NET, current=DOWN, candidate=MADE), Remove("new", volumes=True)),
        (replace(FREEZING, current=OLD), Pause("old")),
    ],
)
def test_where_the_old_one_is_put_back_they_are_started_again(each: Dependent, call: Call | None) -> None:
    """They are as they were, so nothing is made."""
    assert restore([each], goal="goal", is_replaced=False, is_up=True) == (Of(each.name, call) if call else None)


def test_a_namespace_that_is_not_there_is_not_joined() -> None:
    """What lives in the network of one that does not run cannot start; what only has its volumes can."""
    assert restore([replace(NET, current=MADE)], goal="goal", is_replaced=True, is_up=False) is None
    volumes = replace(NET, current=MADE, shares_namespace=False)
    assert restore([volumes], goal="goal", is_replaced=True, is_up=False) == Of("net", Start("new"))


def test_what_needs_one_that_somebody_removed_is_left_alone() -> None:
    """It could not be made; the others go on."""
    needing = replace(NET, name="inner", needs=frozenset({"net"}), current=DOWN)
    other = replace(NET, name="other", current=MADE)
    assert restore([NET, needing, other], goal="goal", is_replaced=True, is_up=True) == Of("other", Start("new"))


def test_what_was_made_again_from_what_is_gone_by_now_is_made_once_more() -> None:
    """Somebody replaced the target after that: it can never run as it is, whether it is the first one or not."""
    dangling = replace(NET, current=replace(MADE, is_dangling=True))
    for is_replaced in (True, False):
        assert restore([dangling], goal="goal", is_replaced=is_replaced, is_up=True) == Of("net", Create())
    candidate = replace(MADE, id="newer", references=frozenset({"goal"}))
    made = replace(dangling, candidate=candidate)
    assert restore([made], goal="goal", is_replaced=True, is_up=True) == Of("net", Remove("new", volumes=False))


def test_where_the_target_is_gone_for_good_nothing_of_ours_is_left() -> None:
    """A candidate goes, unless it is all that there is of its container by then; somebody else's is left alone."""
    candidate = replace(MADE, id="newer")
    assert clear([NET, replace(NET, current=DOWN, candidate=candidate)]) == Of("net", Remove("newer", volumes=True))
    assert clear([replace(NET, candidate=candidate)]) == Of("net", Rename("newer"))
    assert clear([replace(NET, current=DOWN, candidate=replace(candidate, image_id="another"))]) is None


def test_what_has_something_of_another_that_goes_along_waits_for_that_one() -> None:
    """It is made against that one's new container, and one that was made against an older one is made anew."""
    inner = replace(NET, name="inner", needs=frozenset({"net"}), stays=frozenset({"kept"}), current=DOWN)
    candidate = replace(MADE, id="inner-new", references=frozenset({"new", "kept"}))
    parts = {"goal": "goal", "is_replaced": True, "is_up": True}
    assert restore([replace(NET, current=UP), inner], **parts) == Of("inner", Create())  # type: ignore[arg-type]
    there = [replace(NET, current=UP), replace(inner, candidate=candidate)]
    assert restore(there, **parts) == Of("inner", Remove("old", volumes=False))  # type: ignore[arg-type]
    remade = [replace(NET, current=replace(UP, id="newer")), replace(inner, candidate=candidate)]
    assert restore(remade, **parts) == Of("inner", Remove("inner-new", volumes=True))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "each, call",
    [
        (replace(ASKING, current=replace(OLD, id="web")), Restart("web")),
        (replace(ASKING, current=replace(OLD, id="web"), is_started=True), None),
        (replace(ASKING, current=DOWN), None),
        (ASKING, None),
        (replace(NET, current=OLD), None),
    ],
)
def test_who_asks_for_it_is_started_anew_once(each: Dependent, call: Call | None) -> None:
    """As long as it runs, and after that no more."""
    assert restart([each]) == (Of(each.name, call) if call else None)
