"""The new one is made by its tag; what cannot be recreated is held with the reason, and nothing is left over."""

from __future__ import annotations

import pytest

from tests.integration.fidelity.cases import (
    assert_untouched,
    made,
    updated,
    volumes,
)
from tests.integration.line import LABELS, Line
from tests.integration.versions import app

# Time decides nothing here: on a busy machine an update takes as long as it takes.
pytestmark = pytest.mark.timeout(900)


@pytest.mark.fidelity(41)
async def test_it_is_made_by_its_tag(line: Line) -> None:
    """The new one names the reference as configured, and the engine's own tag means what it runs."""
    (before, after), *_ = (await updated(line, {"web": made()})).values()
    reference = line.store.reference("app:1")
    assert (before["Config"]["Image"], after["Config"]["Image"]) == (reference, reference)
    assert after["Image"] == await line.docker("image", "inspect", "--format={{.Id}}", reference)
    assert before["Image"] == await line.docker("image", "inspect", "--format={{.Id}}", "sidecar-previous:web")


@pytest.mark.fidelity(18, 41, 42, by="hold")
async def test_what_would_be_lost_is_held_with_the_reason(line: Line) -> None:
    """What cannot be recreated as it is, or is pinned, or would take something from another, is left as it is."""
    reference = line.store.reference("app:1")
    digest = line.push(app("1"))
    await line.docker("network", "create", "one")
    short = (await line.docker("network", "inspect", "--format={{.Id}}", "one"))[:12]
    await line.make("run", "swarms", "--label=com.docker.swarm.task.id=some")
    await line.make("run", "alone")
    await line.docker("network", "disconnect", "bridge", "alone")
    await line.make("run", "short", f"--network={short}", "--network-alias=web")
    await line.make("run", "parent")
    await line.make("run", "linked")
    await line.make("run", "lender")
    lender = (await line.inspect("lender"))["Id"]
    others = {
        "child": "--network=container:parent",
        "linker": "--link=linked:it",
        "user": f"--volumes-from={lender[:9]}",
    }
    for name, option in others.items():
        left = ["--label=sidecar.enable=false", "--entrypoint=sleep", reference, "999"]
        await line.docker("run", "--detach", f"--name={name}", option, *left)
    flags = [f"--label={key}={value}" for key, value in LABELS.items()]
    pinned, ident = f"{line.store.reference('app')}@{digest}", await line.docker("images", "--quiet", reference)
    await line.docker("run", "--detach", "--name=pinned", *flags, pinned)
    await line.docker("run", "--detach", "--name=by-id", *flags, ident)
    reasons = {
        "swarms": "it is a task of a Swarm service",
        "alone": "it was disconnected from all its networks",
        "short": "it was made with the shortened id of a network",
        "parent": "child has a namespace, volumes or a link of parent, and cannot",
        "linked": "linker has a namespace, volumes or a link of linked, and cannot",
        "lender": "user has a namespace, volumes or a link of lender, and cannot",
        "pinned": "its reference is pinned to sha256:",
        "by-id": "it runs the image id ",
    }
    before = {name: await line.inspect(name) for name in reasons}
    line.push(app("2"))
    outcomes = {name: await line.run_pass(name) for name in reasons}
    assert {name: outcome for name, outcome in outcomes.items() if reasons[name] not in outcome} == {}
    assert all(outcome.startswith("hold: ") for outcome in outcomes.values())
    for name in reasons:
        assert_untouched(before[name], await line.inspect(name))
    assert line.events.named("rollout.stepped") == []
    assert line.events.named("image.pulled") == []
    names = (await line.docker("ps", "--all", "--format={{.Names}}")).split()
    assert sorted(names) == sorted([*reasons, *others])


@pytest.mark.fidelity(3)
async def test_updates_in_a_row_leave_nothing_over(line: Line) -> None:
    """After two updates there is the container, its volumes, its image and the one before, and nothing else."""
    await made("--volume /x --volume named:/named --restart always").make(line, "web")
    first = await line.inspect("web")
    for version in ("2", "3"):
        line.push(app(version))
        await line.update("web")
    after = await line.inspect("web")
    assert (await line.docker("ps", "--all", "--quiet", "--no-trunc")).split() == [after["Id"]]
    used = {mount["Name"] for each in (first, after) for mount in each["Mounts"]}
    places = {mount["Destination"] for mount in after["Mounts"]}
    assert places == {"/x", "/named", "/data", "/only-1", "/only-2", "/only-3"}
    assert await volumes(line) == used
    found = (await line.docker("images", "--all", "--format={{.ID}} {{.Repository}}:{{.Tag}}")).splitlines()
    idents, names = zip(*(row.split() for row in found), strict=True)
    assert len(set(idents)) == 2
    tagged = {name for name in names if not name.endswith("<none>")}
    assert tagged == {line.store.reference("app:1"), "sidecar-previous:web"}
    kept = await line.docker("image", "inspect", "--format={{.Config.User}}", "sidecar-previous:web")
    assert kept == "1002"
    assert line.events.named("rollout.changed") == []
