"""What an inspect says is read into Sidecar's words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from sidecar.core.image import Digest, ImageRef
from sidecar.core.target import Health, Image, State
from sidecar.targets.containers import (
    Checked,
    detail_of,
    health_of,
    image_of,
    parse_time,
    start_error_of,
    state_of,
    was_stopped,
)

Json = dict[str, Any]
HEX = "a" * 64
STARTED = "2026-01-02T03:04:05.123456789Z"
BEGUN = parse_time(STARTED) or 0.0


@pytest.mark.parametrize(
    "policy, status, error, was_it",
    [
        ("always", "exited", "", True),
        ("unless-stopped", "exited", "", True),
        ("on-failure", "exited", "", False),
        ("no", "exited", "", False),
        ("always", "restarting", "", False),
        ("always", "created", "", False),
        ("always", "exited", "driver failed programming external connectivity", False),
    ],
)
def test_what_the_engine_would_have_started_again_was_stopped(
    policy: str, status: str, error: str, was_it: bool
) -> None:
    """By somebody, unless its restart failed."""
    container = {"HostConfig": {"RestartPolicy": {"Name": policy}}, "State": {"Status": status, "Error": error}}
    assert was_stopped(container) is was_it


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T01:00:10.5+01:00", 10.5),
        ("1970-01-01T00:00:10.123456789Z", 10.123456),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        (None, None),
    ],
)
def test_times_of_the_engine_are_read(text: str | None, seconds: float | None) -> None:
    """Nanoseconds, offsets, and the zero time that means never."""
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "status, state",
    [
        ("running", State.RUNNING),
        ("paused", State.PAUSED),
        ("restarting", State.RESTARTING),
        ("created", State.CREATED),
        ("exited", State.EXITED),
        ("dead", State.EXITED),
        ("removing", State.EXITED),
    ],
)
def test_states_are_read(status: str, state: State) -> None:
    """Dead and half removed are as good as exited."""
    assert state_of({"State": {"Status": status}}) is state


def container(status: str = "running", check: Json | None = None, **state: object) -> Json:
    return {"State": {"Status": status, "StartedAt": STARTED, **state} | ({"Health": check} if check else {})}


def result(code: int, second: int) -> Json:
    """Give a result of a check that began half a second earlier, some seconds after the start; or before it."""
    return {"ExitCode": code, "Start": at(second - 0.5), "End": at(second), "Output": "no\n"}


def at(second: float) -> str:
    return datetime.fromtimestamp(BEGUN + second, UTC).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    "shown, checked",
    [
        (container("exited"), Checked(health=Health.STARTING)),
        (container("restarting"), Checked(health=Health.STARTING)),
        (container(), Checked(health=Health.HEALTHY, since=parse_time(STARTED))),
        (container(check={"Status": "none"}), Checked(health=Health.HEALTHY, since=parse_time(STARTED))),
        (container(check={"Status": "starting", "Log": []}), Checked(health=Health.STARTING)),
        (container(check={"Status": "starting", "Log": [result(0, 1)]}), Checked(health=Health.STARTING)),
        (container(check={"Status": "unhealthy", "Log": [result(1, 1)]}), Checked(health=Health.UNHEALTHY)),
        (
            container(check={"Status": "healthy", "Log": [result(0, 1), result(0, 2)]}),
            Checked(health=Health.HEALTHY, since=pytest.approx(BEGUN + 1), is_unbroken=True),
        ),
        (
            container(check={"Status": "healthy", "Log": [result(0, 1), result(1, 2), result(0, 3), result(0, 4)]}),
            Checked(health=Health.HEALTHY, since=pytest.approx(BEGUN + 3)),
        ),
        (container(check={"Status": "healthy", "Log": [result(0, 1), result(1, 2)]}), Checked(health=Health.STARTING)),
        (container(check={"Status": "healthy", "Log": None}), Checked(health=Health.STARTING)),
        # What an earlier run left in the log, which the engine keeps, was said of that run.
        (
            container(check={"Status": "healthy", "Log": [result(0, -9), result(1, -6), result(0, -3), result(0, 1)]}),
            Checked(health=Health.HEALTHY, since=pytest.approx(BEGUN + 1), is_unbroken=True),
        ),
        (container(check={"Status": "healthy", "Log": [result(0, -3)]}), Checked(health=Health.STARTING)),
    ],
)
def test_health_is_the_unbroken_tail_of_successes(shown: Json, checked: Checked) -> None:
    """Without a check, staying up; with one, since the first success after the last failure."""
    assert health_of(shown) == checked


def test_the_engines_words_make_a_reason() -> None:
    """Out of memory, an error of the start, an exit code, the last answer of the check; nothing when all is well."""
    assert detail_of(container()) == ""
    troubled = container(
        check={"Status": "unhealthy", "Log": [result(1, 1)]}, OOMKilled=True, Error="exec: not found", ExitCode=127
    )
    assert detail_of(troubled) == "out of memory, exec: not found, exit code 127, health check: exit code 1, 'no'"
    assert detail_of(container(check={"Status": "starting", "Log": [result(1, -1)]})) == ""
    assert detail_of(container(check={"Status": "starting", "Log": None})) == "its health check has not run once"


def test_an_image_is_known_by_the_digests_of_its_targets_repository() -> None:
    """Digests under other repositories do not count; what cannot be read neither."""
    inspected = {
        "Id": "sha256:id",
        "Os": "linux",
        "Architecture": "arm64",
        "Variant": "v8",
        "RepoDigests": [f"app@sha256:{HEX}", f"ghcr.io/app@sha256:{'b' * 64}", "<none>@<none>"],
    }
    ref = ImageRef.configured("app")
    expected = Image(id="sha256:id", digests=frozenset({Digest(f"sha256:{HEX}")}), platform="linux/arm64/v8")
    assert image_of(inspected, "sha256:id", ref) == expected
    assert image_of(None, "sha256:id", ref) == Image(id="sha256:id")


@pytest.mark.parametrize(
    "is_running, error, said", [(False, "no shell", "no shell"), (True, "no shell", ""), (False, "", "")]
)
def test_why_a_start_failed_is_said_of_what_does_not_run(is_running: bool, error: str, said: str) -> None:
    """An engine that clears its error late says nothing against a start that came about."""
    assert start_error_of({"State": {"Running": is_running, "Error": error}}) == said
