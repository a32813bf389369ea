"""Labels are read into values, and a wrong one is named."""

import pytest

from sidecar.core.policy import (
    Action,
    Hook,
    Policy,
    Strategy,
    WhenStopped,
    is_enabled,
    parse_bool,
    parse_duration,
    parse_policy,
)


@pytest.mark.parametrize(
    "text, seconds",
    [("90", 90), ("90s", 90), ("1.5s", 1.5), ("5m", 300), ("1h30m", 5400), ("1h", 3600), (" 0 ", 0), ("1m5", 65)],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    """A number is seconds; h, m and s add up."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 m", "1d", "s", "5m1h"])
def test_what_is_no_duration_is_shown(text: str) -> None:
    """The message holds the text and what is accepted."""
    with pytest.raises(ValueError, match="is no duration; write seconds or a form like"):
        parse_duration(text)


@pytest.mark.parametrize("text, value", [("true", True), ("YES", True), ("1", True), (" off ", False), ("0", False)])
def test_booleans_are_read_as_people_write_them(text: str, value: bool) -> None:
    """The usual words, in any case."""
    assert parse_bool(text) is value


def test_what_is_no_boolean_is_shown() -> None:
    """The message holds the text."""
    with pytest.raises(ValueError, match="'maybe' is neither true nor false"):
        parse_bool("maybe")


@pytest.mark.parametrize(
    "labels, default, enabled",
    [
        ({}, False, False),
        ({}, True, True),
        ({"sidecar.enable": "true"}, False, True),
        ({"sidecar.enable": "false"}, True, False),
        ({"sidecar.enable": "ture"}, False, True),
    ],
)
def test_a_label_asks_for_sidecar(labels: dict[str, str], default: bool, enabled: bool) -> None:
    """The label decides, the default without one; a value that cannot be read counts as yes, to be reported."""
    assert is_enabled(labels, default=default) is enabled


def test_without_labels_the_defaults_hold() -> None:
    """The documented defaults, and other people's labels do not matter."""
    assert parse_policy({"com.example": "x"}) == Policy()
    assert parse_policy({}, default_enable=True).enable


def test_every_label_is_read() -> None:
    """Each label of this version ends in its value."""
    labels = {
        "sidecar.enable": "true",
        "sidecar.action": "notify",
        "sidecar.strategy": "start-first",
        "sidecar.policy": "digest",
        "sidecar.min-ready": "3s",
        "sidecar.deadline": "1m",
        "sidecar.settle": "2",
        "sidecar.rollback": "false",
        "sidecar.when-stopped": "recreate",
        "sidecar.depends-on": "db, cache,",
        "sidecar.hook.pre-update": " dump --all ",
        "sidecar.hook.pre-update-timeout": "0",
        "sidecar.hook.post-update": "warm",
        "sidecar.scope": " blue ",
        "sidecar.approval": "auto",
    }
    assert parse_policy(labels) == Policy(
        enable=True,
        action=Action.NOTIFY,
        strategy=Strategy.START_FIRST,
        min_ready_seconds=3,
        deadline_seconds=60,
        settle_seconds=2,
        rollback=False,
        when_stopped=WhenStopped.RECREATE,
        depends_on=("db", "cache"),
        pre_update=Hook(command="dump --all", timeout_seconds=None),
        post_update=Hook(command="warm", timeout_seconds=300),
        scope="blue",
    )


@pytest.mark.parametrize(
    "label, value, message",
    [
        ("sidecar.enabel", "true", r"label sidecar\.enabel is not known; did you mean sidecar\.enable\?"),
        ("sidecar.zzz", "true", r"label sidecar\.zzz is not known; known are action, approval"),
        ("sidecar.deadline", "soon", r"label sidecar\.deadline='soon': 'soon' is no duration"),
        ("sidecar.rollback", "maybe", r"label sidecar\.rollback='maybe'"),
        ("sidecar.action", "explode", r"label sidecar\.action='explode'.*accepted are recreate, pull, notify"),
        ("sidecar.approval", "manual", r"label sidecar\.approval='manual' is not supported yet"),
        ("sidecar.policy", "semver:^1", r"not supported yet"),
        ("sidecar.hook.pre-update-timeout", "x", r"label sidecar\.hook\.pre-update-timeout='x': 'x' is no duration"),
    ],
)
def test_a_wrong_label_is_named_with_what_is_accepted(label: str, value: str, message: str) -> None:
    """Nothing is ignored in silence: an unknown, unreadable or not yet supported label raises by name."""
    with pytest.raises(ValueError, match=message):
        parse_policy({label: value})


def test_every_label_that_is_not_accepted_is_named_at_once() -> None:
    """Whoever wrote two wrong ones does not create the container again for each."""
    labels = {"sidecar.enabel": "true", "sidecar.enable": "true", "sidecar.deadlin": "5m", "sidecar.approval": "manual"}
    with pytest.raises(ValueError, match=r"\.enabel is.*; label sidecar\.deadlin is.*\.approval="):
        parse_policy(labels)
