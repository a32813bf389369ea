"""Watchtower's labels and settings in labels of ours: every row of its table, and what is said of the rest."""

import pytest

from sidecar.core.policy import Action, Hook, parse_policy
from sidecar.core.watchtower import Rules, Translated, translate
from sidecar.core.watchtower_names import (
    ENVIRONMENT,
    LABELS,
    ORIGINAL_IMAGE,
    PREFIX,
    Fate,
    fate_of,
    is_off,
    names_in,
    parse_bool,
)

NONE = Rules()
HOOKS = Rules(lifecycle_hooks=True)


def translated(rules: Rules = NONE, own: dict[str, str] | None = None, **labels: str) -> Translated:
    return translate("web", _theirs(labels) | (own or {}), rules)


def _theirs(labels: dict[str, str]) -> dict[str, str]:
    return {f"{PREFIX}.{key.replace('__', '.').replace('_', '-')}": value for key, value in labels.items()}


@pytest.mark.parametrize(
    "text, value",
    [
        *((text, True) for text in ("1", "t", "T", "TRUE", "true", "True")),
        *((text, False) for text in ("0", "f", "F", "FALSE", "false", "False")),
        *((text, None) for text in ("yes", "on", "tRUE", "", " true", None)),
    ],
)
def test_true_and_false_are_read_as_go_reads_them(text: str | None, value: bool | None) -> None:
    """What Go's ParseBool does not know counts as not set."""
    assert parse_bool(text) is value


@pytest.mark.parametrize(
    "rules, labels, ours",
    [
        # enable
        (NONE, {}, {}),
        (NONE, {"enable": "true"}, {"enable": "true"}),
        (NONE, {"enable": "T"}, {"enable": "true"}),
        (NONE, {"enable": "0"}, {"enable": "false"}),
        (NONE, {"enable": "yes"}, {}),
        (Rules(disable_containers=frozenset({"web"})), {"enable": "true"}, {"enable": "false"}),
        (Rules(disable_containers=frozenset({"we"})), {}, {}),
        # monitor-only: the label or the setting, unless the label takes precedence
        (NONE, {"monitor_only": "true"}, {"action": "notify"}),
        (NONE, {"monitor_only": "false"}, {}),
        (Rules(monitor_only=True), {}, {"action": "notify"}),
        (Rules(monitor_only=True), {"monitor_only": "false"}, {"action": "notify"}),
        (Rules(monitor_only=True, label_take_precedence=True), {"monitor_only": "false"}, {}),
        (Rules(monitor_only=True, label_take_precedence=True), {"monitor_only": "no"}, {"action": "notify"}),
        (Rules(monitor_only=True, label_take_precedence=True), {}, {"action": "notify"}),
        (Rules(label_take_precedence=True), {"monitor_only": "1"}, {"action": "notify"}),
        # no-pull: the same rule
        (NONE, {"no_pull": "true"}, {"action": "notify"}),
        (Rules(no_pull=True), {}, {"action": "notify"}),
        (Rules(no_pull=True, label_take_precedence=True), {"no_pull": "false"}, {}),
        (Rules(no_restart=True), {}, {"action": "pull"}),
        (Rules(no_restart=True), {"monitor_only": "true"}, {"action": "notify"}),
        # scope: without one every scope
        (NONE, {"scope": "prod"}, {}),
        (Rules(scope="prod"), {"scope": "prod"}, {"scope": "prod"}),
        (Rules(scope="prod"), {"scope": "test"}, {"scope": "test"}),
        (Rules(scope="prod"), {"scope": ""}, {"scope": "none"}),
        (Rules(scope="none"), {}, {"scope": "none"}),
        # depends-on
        (NONE, {"depends_on": "/db, cache"}, {"depends-on": "db,cache"}),
        (NONE, {"depends_on": " , "}, {}),
        # hooks: off unless asked for
        (NONE, {"lifecycle__pre_update": "dump"}, {}),
        (HOOKS, {"lifecycle__pre_update": "dump -a"}, {"hook.pre-update": "dump -a", "hook.pre-update-timeout": "1m"}),
        (HOOKS, {"lifecycle__post_update": "warm"}, {"hook.post-update": "warm", "hook.post-update-timeout": "1m"}),
        (
            HOOKS,
            {"lifecycle__pre_update": "dump", "lifecycle__pre_update_timeout": "5"},
            {"hook.pre-update": "dump", "hook.pre-update-timeout": "5m"},
        ),
        (
            HOOKS,
            {"lifecycle__post_update": "warm", "lifecycle__post_update_timeout": "0"},
            {"hook.post-update": "warm", "hook.post-update-timeout": "0m"},
        ),
        (
            HOOKS,
            {"lifecycle__pre_update": "dump", "lifecycle__pre_update_timeout": "-1"},
            {"hook.pre-update": "dump", "hook.pre-update-timeout": "0m"},
        ),
        (
            HOOKS,
            {"lifecycle__pre_update": "dump", "lifecycle__pre_update_timeout": "2m"},
            {"hook.pre-update": "dump", "hook.pre-update-timeout": "1m"},
        ),
        (HOOKS, {"lifecycle__pre_update_timeout": "5"}, {}),
        (HOOKS, {"lifecycle__pre_check": "x", "lifecycle__post_check": "x"}, {}),
        # what the settings ask of all
        (Rules(include_stopped=True), {}, {"when-stopped": "recreate"}),
        # the forks
        (NONE, {"cooldown_delay": "24h"}, {"min-age": "24h"}),
        (NONE, {"cooldown_delay": "3d"}, {"min-age": "72h"}),
        (NONE, {"cooldown_delay": "1w"}, {"min-age": "168h"}),
        (NONE, {"cooldown_delay": "0"}, {"min-age": "0"}),
        (NONE, {"image_cooldown": "1h30m"}, {"min-age": "90m"}),
        (NONE, {"image_cooldown": "0s"}, {"min-age": "0"}),
        (NONE, {"health_check_timeout": "90s"}, {"deadline": "90s"}),
        (NONE, {"health_check_timeout": "90"}, {}),
        (NONE, {"update_strategy": "blue-green"}, {"strategy": "start-first"}),
        (NONE, {"update_strategy": "rolling-restart"}, {"strategy": "stop-first"}),
        (NONE, {"update_strategy": "recreate"}, {"strategy": "stop-first"}),
        (NONE, {"update_strategy": "canary"}, {}),
        (NONE, {"blue_green__drain": "15s"}, {"drain": "15s"}),
        (NONE, {"no_init_deps": "true", "container_chain": "x", "ephemeral_orchestrator": "true"}, {}),
    ],
)
def test_every_label_becomes_labels_of_ours(rules: Rules, labels: dict[str, str], ours: dict[str, str]) -> None:
    """As Watchtower would have read it, label by label; nothing of its own is left."""
    assert translated(rules, **labels).labels == {f"sidecar.{key}": value for key, value in ours.items()}


def test_labels_of_others_stay() -> None:
    """What is no label of Watchtower's is handed on as it is."""
    compose = {"com.docker.compose.project": "shop", f"{PREFIX}er": "x"}
    assert translated(own=compose).labels == compose


@pytest.mark.parametrize(
    "rules, labels, own",
    [
        (NONE, {"enable": "false"}, {"sidecar.enable": "true"}),
        (Rules(disable_containers=frozenset({"web"})), {}, {"sidecar.enable": "true"}),
        (NONE, {"monitor_only": "true"}, {"sidecar.action": "recreate"}),
        (Rules(scope="prod"), {"scope": "prod"}, {"sidecar.scope": "test"}),
        (NONE, {"depends_on": "db"}, {"sidecar.depends-on": "cache"}),
        (Rules(include_stopped=True), {}, {"sidecar.when-stopped": "hold"}),
        (NONE, {"cooldown_delay": "soon"}, {"sidecar.min-age": "0"}),
    ],
)
def test_a_label_of_ours_wins(rules: Rules, labels: dict[str, str], own: dict[str, str]) -> None:
    """Whatever Watchtower's say of the same thing."""
    read = translated(rules, own, **labels)
    assert read.labels == own
    assert (read.excluded, read.refusal, read.origins) == (None, None, {})


@pytest.mark.parametrize("own", [{}, {"sidecar.enable": "true"}])
def test_a_watchtower_is_never_a_target(own: dict[str, str]) -> None:
    """It marks itself; that another updater replaces it is what nobody can want."""
    read = translate("watchtower", {PREFIX: "true", **own}, NONE)
    assert read.labels == {"sidecar.enable": "false"}
    assert read.excluded is not None
    assert "it is a Watchtower" in read.excluded


@pytest.mark.parametrize("value", ["false", "TRUE", "1", ""])
def test_only_the_exact_mark_makes_a_watchtower(value: str) -> None:
    """As Watchtower itself compares it."""
    read = translate("web", {PREFIX: value}, NONE)
    assert (read.labels, read.excluded) == ({}, None)


@pytest.mark.parametrize(
    "rules, labels, words",
    [
        (NONE, {"enable": "false"}, f"label {PREFIX}.enable='false' leaves it out"),
        (Rules(disable_containers=frozenset({"web"})), {}, "WATCHTOWER_DISABLE_CONTAINERS leaves it out"),
        (NONE, {"enable": "true"}, None),
    ],
)
def test_who_leaves_a_container_out_is_named(rules: Rules, labels: dict[str, str], words: str | None) -> None:
    """In the words that its owner wrote, not in ours."""
    assert translated(rules, **labels).excluded == words


@pytest.mark.parametrize(
    "rules, labels, words",
    [
        (NONE, {"stop_signal": "SIGHUP"}, f"label {PREFIX}.stop-signal='SIGHUP' is not supported"),
        (Rules(monitor_only=True), {"stop_signal": "SIGHUP"}, None),
        (Rules(no_restart=True), {"stop_signal": "SIGHUP"}, None),
        (NONE, {"stop_signal": ""}, None),
        (HOOKS, {"lifecycle__pre_update": "x", "lifecycle__uid": "0"}, f"label {PREFIX}.lifecycle.uid='0' is not"),
        (HOOKS, {"lifecycle__post_update": "x", "lifecycle__gid": "0"}, f"label {PREFIX}.lifecycle.gid='0' is not"),
        (HOOKS, {"lifecycle__uid": "0"}, None),
        (NONE, {"lifecycle__pre_update": "x", "lifecycle__uid": "0"}, None),
        (NONE, {"cooldown_delay": "soon"}, f"label {PREFIX}.cooldown-delay='soon' is no duration"),
        (NONE, {"image_cooldown": "1y"}, f"label {PREFIX}.image-cooldown='1y' is no duration"),
        (NONE, {"cooldown_delay": "1d"}, None),
    ],
)
def test_what_must_not_be_left_out_holds_its_container(rules: Rules, labels: dict[str, str], words: str | None) -> None:
    """To do the rest of it would be what its owner asked not to do."""
    refusal = translated(rules, **labels).refusal
    assert refusal is words or (words is not None and refusal is not None and refusal.startswith(words))


@pytest.mark.parametrize("rules", [NONE, Rules(monitor_only=True)])
def test_an_image_of_another_name_holds_its_container(rules: Rules) -> None:
    """Zodiac's label says that its reference is not the one that counts."""
    refusal = translate("web", {ORIGINAL_IMAGE: "me/app:1"}, rules).refusal
    assert refusal is not None
    assert "only the reference counts that the container was made with" in refusal


def test_an_action_of_ours_decides_whether_a_signal_matters() -> None:
    """A container that is only spoken of is not stopped."""
    read = translated(own={"sidecar.action": "notify"}, stop_signal="SIGHUP")
    assert read.refusal is None


def test_dependencies_are_called_as_ours_are() -> None:
    """Watchtower names containers, Compose's order services; who is neither is told."""
    labels = _theirs({"depends_on": "shop-db-1,cache,/other"})
    read = translate("web", labels, NONE, neighbours={"shop-db-1": "db", "shop-cache-1": "cache"})
    assert read.labels == {"sidecar.depends-on": "db,cache,other"}
    (remark,) = read.remarks
    assert "'other' is no container of its Compose project" in str(remark)


@pytest.mark.parametrize(
    "labels, words",
    [
        ({"enable": "yes"}, f"{PREFIX}.enable: 'yes' is neither true nor false"),
        ({"monitor_only": "on"}, f"{PREFIX}.monitor-only: 'on' is neither"),
        ({"lifecycle__pre_update_timeout": "2m"}, "no whole number of minutes; one minute counts"),
        ({"lifecycle__pre_check": "x"}, "Sidecar does not poll"),
        ({"lifecycle__post_check": "x"}, "Sidecar does not poll"),
        ({"no_pull": "true"}, "sidecar.action=notify"),
        ({"stop_signal": "SIGHUP"}, "until then it is held"),
        ({"update_strategy": "canary"}, "sidecar.strategy takes its place"),
        ({"monitoronly": "true"}, f"is no label of Watchtower's; did you mean {PREFIX}.monitor-only?"),
        ({"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz": "x"}, "is no label of Watchtower's"),
    ],
)
def test_what_is_not_done_as_it_says_is_told(labels: dict[str, str], words: str) -> None:
    """One remark for a label, with what to do instead."""
    (remark,) = translated(**labels).remarks
    assert words in str(remark)


@pytest.mark.parametrize(
    "labels",
    [
        {"enable": "true", "monitor_only": "false", "scope": "x", "depends_on": "db"},
        {"no_pull": "false", "cooldown_delay": "0", "no_init_deps": "false", "stop_signal": ""},
        {"lifecycle__pre_update": "x", "lifecycle__pre_update_timeout": "3"},
    ],
)
def test_of_what_is_honoured_nothing_is_said(labels: dict[str, str]) -> None:
    """Nor of a label that asks for nothing."""
    assert translated(**labels).remarks == ()


def test_what_is_wrong_with_a_label_names_the_one_that_was_written() -> None:
    """The owner of a container looks for the label that is there."""
    read = translated(cooldown_delay="3d")
    said = read.explained("label sidecar.min-age='72h' is not supported yet")
    assert said.endswith(f"(asked for by label {PREFIX}.cooldown-delay='3d')")
    assert read.explained("label sidecar.dog='x' is not known") == "label sidecar.dog='x' is not known"


@pytest.mark.parametrize("rules", [NONE, Rules(monitor_only=True, include_stopped=True, scope="x")])
def test_what_is_translated_can_be_read(rules: Rules) -> None:
    """Ours is what comes out: labels that this version reads."""
    policy = parse_policy(translated(rules, enable="true", depends_on="db", blue_green__drain="5s").labels)
    assert (policy.enable, policy.scope) == (True, "none" if rules.scope else None)
    assert policy.action is (Action.NOTIFY if rules.monitor_only else Action.RECREATE)


@pytest.mark.parametrize("minutes, seconds", [(None, 60), ("5", 300), ("0", None), ("-1", None), ("2m", 60)])
def test_hooks_are_read_with_the_time_that_watchtower_gave_them(minutes: str | None, seconds: float | None) -> None:
    """Whole minutes, one where nothing can be read; none is as long as it takes."""
    timeout = {"lifecycle__pre_update_timeout": minutes} if minutes is not None else {}
    policy = parse_policy(translated(HOOKS, lifecycle__pre_update="dump --all", **timeout).labels)
    assert policy.pre_update == Hook(command="dump --all", timeout_seconds=seconds)
    assert policy.post_update is None


@pytest.mark.parametrize(
    "text, names",
    [("a,b c", ["a", "b", "c"]), ("/a, /b", ["a", "b"]), ("", []), (" , / ", []), ("a\tb", ["a", "b"])],
)
def test_names_are_between_commas_or_spaces(text: str, names: list[str]) -> None:
    """As Watchtower takes them; a slash before one is the engine's."""
    assert names_in(text) == names


@pytest.mark.parametrize("text, is_one", [("", True), (" ", True), ("false", True), ("0", True), ("1", False)])
def test_a_value_may_ask_for_nothing(text: str, is_one: bool) -> None:
    """Of that there is nothing to say."""
    assert is_off(text) is is_one


def test_what_is_not_honoured_has_a_reason() -> None:
    """In every table, with what to do instead."""
    for known in (*LABELS.values(), *ENVIRONMENT.values()):
        assert bool(known.words) is (known.fate is not Fate.HONOURED)


@pytest.mark.parametrize(
    "variable, fate",
    [
        ("WATCHTOWER_CLEANUP", Fate.HONOURED),
        ("WATCHTOWER_NOTIFICATIONS", Fate.REFUSED),
        ("WATCHTOWER_NOTIFICATION_EMAIL_SERVER_PASSWORD", Fate.REFUSED),
        ("WATCHTOWER_CLEANUPS", None),
    ],
)
def test_variables_are_looked_up(variable: str, fate: Fate | None) -> None:
    """All that is about notifications is one row."""
    known = fate_of(variable)
    assert (known.fate if known is not None else None) is fate
