"""Every command against a daemon that runs, as a container and as a process: what it prints, and how it ends."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.places import AsAProcess, InAContainer, Place
from tests.e2e.shipped import ADMIN_TOKEN, TOKEN, Answer, ask, until
from tests.e2e.terminal import COLUMNS
from tests.integration.world import free_port
from tests.testbed.engine import NEW, OLD
from tests.testbed.images import Behaviour
from tests.testbed.parts import Parts
from tests.testbed.product import sidecar_image
from tests.testbed.registry import Registry

REMOTE = (["targets"], ["plan"], ["update", "web"], ["update", "web", "--wait"], ["release", "web"], ["history"])
# What the engine tells has the daemon look at its targets too, now and then just between a push and a command.
ATTEMPTS = 5
versions = map(str, count(2))


@pytest.fixture(scope="module")
def container(testbed: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A daemon as a container, on engine 26.1."""
    engine = testbed.engine(NEW.version)
    with own_registry(testbed) as registry:
        yield from running(
            InAContainer(engine, registry, tmp_path_factory.mktemp("container"), image=sidecar_image(engine))
        )


@pytest.fixture(scope="module")
def process(testbed: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A daemon as a process, on engine 20.10."""
    with own_registry(testbed) as registry:
        yield from running(AsAProcess(testbed.engine(OLD.version), registry, tmp_path_factory.mktemp("process")))


@pytest.fixture(params=["container", "process"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each of them; the tests leave it as they like."""
    return request.getfixturevalue(request.param)


def running(place: Place) -> Iterator[Place]:
    place.prepare()
    place.start()
    yield place
    place.stop()
    place.engine.wipe()


@contextmanager
def own_registry(testbed: Parts) -> Iterator[Registry]:
    registry = testbed.registry()
    yield registry
    testbed.drop(registry)


def test_targets_are_shown_and_the_rest_with_its_reason(place: Place):
    """What is managed stands beside what is not, one row each, for a person, for grep and for a program."""
    answer = place.ask("targets")
    assert (answer.status, answer.err) == (0, "")
    head, *rows = [re.split(r" {2,}", line) for line in answer.out.splitlines()]
    assert head == ["TARGET", "IMAGE", "RUNNING", "VERDICT", "WHY"]
    assert rows[0][:2] == ["docker:web", place.reference]
    assert re.fullmatch("sha256:[0-9a-f]{12}", rows[0][2])
    unmanaged = {row[0]: row[-1] for row in rows[1:]}
    assert unmanaged["bystander"] == "not managed: label sidecar.enable is not true"
    body = place.json("targets")
    assert [each["id"] for each in body["targets"]] == ["docker:web"]


def test_a_plan_says_what_would_be_done_and_does_nothing(container: Place):
    """All of it, one target, and what a reference means; nothing on the engine changes."""
    planned = lambda digest: container.json("plan")["plan"][0]["reason"] == f"to {digest}"  # noqa: E731
    digest = pushed_unnoticed(container, planned)
    before = container.engine.docker("ps", "--all", "--quiet", "--no-trunc")
    for what in ([], ["web"], ["docker:web"], [container.reference]):
        answer = container.ask("plan", *what)
        assert (answer.status, answer.err) == (0, "")
        head, row = answer.out.splitlines()
        assert head.split() == ["TARGET", "IMAGE", "RUNNING", "AVAILABLE", "VERDICT", "WHY"]
        assert row.startswith(f"docker:web  {container.reference}  sha256:")
        assert digest[: len("sha256:") + 12] in row
    nothing = container.ask("plan", "nope")
    assert nothing.status == 1
    assert nothing.err == "sidecar: nothing is meant by 'nope'; targets are docker:web\n"
    assert container.engine.docker("ps", "--all", "--quiet", "--no-trunc") == before


def test_an_update_is_waited_for(place: Place):
    """Status 0 once it runs; where nobody watches, each line is one event in JSON, and the last says how it ended."""
    digest, answer, events = updated(place)
    assert (answer.status, answer.err) == (0, "")
    assert {"pull.progressed", "image.pulled", "rollout.stepped"} <= {event["event"] for event in events}
    assert (events[-1]["event"], events[-1]["digest"]) == ("rollout.succeeded", digest)
    assert place.digest() == digest
    again = place.ask("update", "web", "--wait")
    assert again.status == 0
    assert json.loads(again.out.splitlines()[-1])["reason"] == "up to date"


def test_an_update_that_is_rolled_back_fails(place: Place):
    """Status 1 with the reason; the digest is held, the reason names the command that releases it, and that does."""
    updated(place)
    before = place.digest()
    digest, answer, events = updated(place, Behaviour.UNHEALTHY)
    assert (answer.status, answer.err) == (1, "")
    assert (events[-1]["event"], events[-1]["digest"]) == ("rollout.rolled_back", digest)
    assert "unhealthy as it should be" in events[-1]["reason"]
    assert place.digest() == before
    held = place.ask("update", "web", "--wait")
    assert held.status == 1
    reason = json.loads(held.out.splitlines()[-1])["reason"]
    (release,) = re.findall(r"sidecar (release \S+)", reason)
    released = place.ask(*release.split())
    assert released.status == 0
    assert re.match(r"docker:web: \d+ digests? may be tried again\n", released.out)
    rolled_back = lambda: [each["phase"] for each in place.json("history")["rollouts"]].count("rolled_back")  # noqa: E731
    until(lambda: rolled_back() >= 2, "it is tried again")


def test_without_waiting_it_says_where_to_look(container: Place):
    """An update that is only enqueued ends at once, and names its delivery."""
    answer = container.ask("update", "web")
    assert answer.status == 0
    (delivery,) = re.findall(r"as delivery (\w+); `sidecar history` shows what becomes of it", answer.out)
    assert delivery in [each["id"] for each in container.json("history")["deliveries"]]


@pytest.mark.parametrize(
    "behaviour, status, end",
    [
        (Behaviour.HEALTHY, 0, "ok  docker:web: succeeded"),
        (Behaviour.UNHEALTHY, 1, "FAILED  docker:web: rolled back: .*unhealthy as it should be.*"),
    ],
)
def test_on_a_terminal_progress_is_shown(place: Place, behaviour: Behaviour, status: int, end: str):
    """A person sees what is done while it is done, and in the end one line that says how it went, and why."""
    for _ in range(ATTEMPTS):
        place.push(next(versions), behaviour)
        ended, lines = place.on_a_terminal("update", "web", "--wait")
        if any("updating: create" in line for line in lines):
            break
    assert ended == status
    last = next(number for number, line in enumerate(lines) if line.startswith(("ok  ", "FAILED  ")))
    assert re.fullmatch(end, "".join(lines[last:]))
    assert max(map(len, lines[:last])) <= COLUMNS  # the terminal itself breaks what is said at the end
    assert any("updating: started; it is watched until it is healthy" in line for line in lines)


def test_on_a_terminal_that_cannot_draw_lines_are_written(process: Place):
    """What is done is a line of text each, none of it twice in a row, and the last one says how it ended."""
    for _ in range(ATTEMPTS):
        process.push(next(versions))
        status, lines = process.on_a_terminal("update", "web", "--wait", TERM="dumb")
        if "docker:web: updating: create" in lines:
            break
    assert status == 0
    assert lines[-1] == "ok  docker:web: succeeded"
    assert "docker:web: updating: started; it is watched until it is healthy" in lines
    assert not [line for line, following in pairwise(lines) if line == following]


@pytest.mark.parametrize("command", ["targets", "plan", "history", "check", "doctor"])
def test_on_a_terminal_all_that_is_shown_fits(container: Place, command: str):
    """Tables are no wider than the terminal, whatever they have to say."""
    status, lines = container.on_a_terminal(command)
    assert status == 0
    if command != "doctor":  # sentences, which the terminal itself breaks
        assert max(map(len, lines)) <= COLUMNS
        assert lines[1] == "\u2500" * len(lines[1])


def test_history_shows_what_came_and_what_was_done(container: Place):
    """Webhooks and rollouts stand in one list, newest first; a program gets the bodies too."""
    body = json.dumps({"image": container.reference}).encode()
    request = urllib.request.Request(
        f"{container.url}/hooks/generic/{TOKEN}", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as accepted:
        assert accepted.status == 202
        delivery = json.load(accepted)["delivery"]
    answer = container.ask("history")
    assert (answer.status, answer.err) == (0, "")
    head, *rows = answer.out.splitlines()
    assert head.split() == ["TIME", "WHO", "WHAT", "WHICH", "WHY"]
    times = [row.split()[0] for row in rows]
    assert times == sorted(times, reverse=True)
    assert any(re.search(rf"Z  generic +accepted +{re.escape(container.reference)}", row) for row in rows)
    assert len(container.ask("history", "--limit", "1").out.splitlines()) == 2
    (same,) = [each for each in container.json("history")["deliveries"] if each["id"] == delivery]
    assert json.loads(same["body"]) == {"image": container.reference}
    mine = container.ask("history", "--target", "web")
    assert "docker:web" in mine.out or "nothing is recorded" in mine.err


def test_addresses_and_tokens_are_printed_alone(place: Place):
    """What is to be pasted is all that stands on standard output; without a base it is not guessed."""
    assert place.ask("token").out == f"{TOKEN}\n"
    assert place.ask("token", "--admin").out == f"{ADMIN_TOKEN}\n"
    url = place.ask("url", "dockerhub", "--base", "https://hooks.example.com/")
    assert (url.status, url.out) == (0, f"https://hooks.example.com/hooks/dockerhub/{TOKEN}\n")
    assert "hub.docker.com" in url.err
    guess = place.ask("url", "dockerhub")
    assert (guess.status, guess.out) == (2, "")
    assert "--base" in guess.err


def test_check_shows_every_setting_and_no_secret(place: Place):
    """Secrets that are set are masked, and everything is there with the place where it was written."""
    answer = place.ask("check")
    assert answer.status == 0
    shown = {line.split()[0]: line.split()[1:] for line in answer.out.splitlines()}
    assert shown["SIDECAR_TOKEN"] == shown["SIDECAR_ADMIN_TOKEN"] == ["***", "environment"]
    assert shown["SIDECAR_DEBOUNCE_SECONDS"] == ["0.2", "environment"]
    assert TOKEN not in answer.out + answer.err
    assert ADMIN_TOKEN not in answer.out + answer.err


def test_the_doctor_finds_it_well(place: Place):
    """With all in place nothing is left to do, and each part is named."""
    findings = place.json("doctor")
    parts = {each["part"] for each in findings}
    assert parts == {"settings", "state", "engine", "clock", "targets", "credentials", "registry", "daemon"}
    doubtful = [each for each in findings if each["status"] != "ok"]
    # Where the state is kept is a matter of the machine on which the process runs.
    assert [each for each in doubtful if each["part"] != "state" or not place.is_on_the_host] == []


def test_the_health_check_tells_life_from_readiness(place: Place):
    """Both are well while the engine is there."""
    assert place.ask("healthcheck").status == 0
    ready = place.ask("healthcheck", "--ready")
    assert (ready.status, json.loads(ready.out)) == (0, {"status": "ready"})


def test_a_daemon_elsewhere_is_asked_with_its_token(container: Place):
    """By its address and the admin token everything can be asked that can be asked where it runs."""
    for command in REMOTE:
        answer = container.from_elsewhere(*command)
        assert answer.status in {0, 1} if "--wait" in command else answer.status == 0, (command, answer)
    assert "docker:web" in container.from_elsewhere("targets").out


def test_a_wrong_token_is_a_matter_of_configuration(container: Place):
    """Status 2, and where the right one is found; the wrong one is not repeated."""
    for token in (None, "a-wrong-token-of-some-length"):
        answer = container.from_elsewhere("targets", token=token)
        assert answer.status == 2
        assert "sidecar token --admin" in answer.err
        assert "a-wrong-token" not in answer.err


def test_a_daemon_that_is_not_there_is_unreachable(container: Place, tmp_path: Path):
    """Status 3 for what needs one, by its socket and by its address, with what to do."""
    for command in (["targets"], ["update", "web", "--wait"]):
        here = ask([sys.executable, "-m", "sidecar", *command], SIDECAR_STATE_DIR=str(tmp_path))
        assert here.status == 3
        assert "start it (`sidecar run`)" in here.err
    there = container.from_elsewhere("targets", server=f"http://127.0.0.1:{free_port()}")
    assert there.status == 3
    assert "Connection refused" in there.err


def updated(place: Place, behaviour: Behaviour = Behaviour.HEALTHY) -> tuple[str, Answer, list[dict[str, Any]]]:
    """Push a version, have it run by `update --wait`, and give its digest with what that printed."""
    for _ in range(ATTEMPTS):
        digest = place.push(next(versions), behaviour)
        answer = place.ask("update", "web", "--wait")
        events = [json.loads(line) for line in answer.out.splitlines()]
        if any(event["event"] == "rollout.started" for event in events):
            return digest, answer, events
    raise AssertionError


def pushed_unnoticed(place: Place, is_unnoticed: Callable[[str], bool]) -> str:
    """Push a version that nobody has looked at yet, and give its digest."""
    for _ in range(ATTEMPTS):
        digest = place.push(next(versions))
        if is_unnoticed(digest):
            return digest
    raise AssertionError
