"""Which containers are targets, by their labels, names and references."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.policy import Policy
from sidecar.core.target import Kind
from sidecar.core.watchtower import Rules
from sidecar.targets.discovery import (
    asks_for_restart,
    discover,
    is_looked_after,
    is_recreated,
    own_container,
    why_unmanaged,
)
from sidecar.targets.translated import is_labelled, is_watchtower, remarks

Json = dict[str, Any]
HEX = "a" * 64


def entry(name: str = "web", image: str = "app:1", **labels: str) -> Json:
    """Make the entry of a labelled container in a list."""
    return {
        "Id": f"id-of-{name}",
        "Names": [f"/{name}"],
        "Image": image,
        "Labels": {"sidecar.enable": "true"} | {key.replace("__", "."): value for key, value in labels.items()},
    }


COMPOSE = {
    "com.docker.compose.project": "shop",
    "com.docker.compose.service": "web",
    "com.docker.compose.depends_on": "db:service_healthy:true,cache:service_started:false",
}


def found(*entries: Json, references: dict[str, str] | None = None, scope: str | None = None) -> list[Any]:
    return discover(entries, references or {}, default_enable=False, scope=scope)


def test_a_labelled_container_is_a_target() -> None:
    """Its name, its reference and its labels; those without the label are none."""
    unlabelled = entry("other") | {"Labels": None}
    (target,) = found(entry(), unlabelled)
    assert (target.id, target.kind, str(target.ref)) == ("docker:web", Kind.DOCKER, "docker.io/library/app:1")
    assert target.policy == Policy(enable=True)
    assert (target.project, target.service, target.refusal) == (None, "docker:web", None)


def test_compose_says_what_belongs_together() -> None:
    """Project, service and dependencies come from Compose's labels; ours add to them."""
    (target,) = found(
        entry("shop-web-1", **COMPOSE, sidecar__depends_x="")
        | {"Labels": {"sidecar.enable": "true", "sidecar.depends-on": "mail", **COMPOSE}}
    )
    assert (target.project, target.service) == ("shop", "docker:shop/web")
    assert target.depends_on == ("docker:shop/db", "docker:shop/cache", "docker:shop/mail")


def test_what_lives_in_anothers_network_comes_after_that_one() -> None:
    """The list shows it; where a label says so as well it is said once, and a stranger's network says nothing."""
    inside = entry("inside") | {"HostConfig": {"NetworkMode": "container:id-of-web"}}
    labelled = entry("labelled", sidecar__depends__on="") | {"HostConfig": {"NetworkMode": "container:id-of-web"}}
    labelled["Labels"] = {"sidecar.enable": "true", "sidecar.depends-on": "web"}
    strange = entry("strange") | {"HostConfig": {"NetworkMode": "container:id-of-nobody"}}
    _, *others = found(entry(), inside, labelled, strange)
    assert [target.depends_on for target in others] == [("docker:web",), ("docker:web",), ()]


@pytest.mark.parametrize(
    "depends_on, of, asks",
    [
        ("db:service_healthy:true", {"service": "db"}, True),
        ("db:service_healthy:false", {"service": "db"}, False),
        ("cache:service_started:true", {"service": "db"}, False),
        ("db:service_healthy:true", {"service": "db", "project": "other"}, False),
        ("db", {"service": "db"}, False),
    ],
)
def test_compose_says_who_is_to_be_started_anew_after_whom(depends_on: str, of: dict[str, str], asks: bool) -> None:
    """`restart: true` of a dependency, of the same project."""
    prefix = "com.docker.compose."
    labels = {f"{prefix}project": "shop", f"{prefix}service": "web", f"{prefix}depends_on": depends_on}
    others = {f"{prefix}{key}": value for key, value in ({"project": "shop"} | of).items()}
    assert asks_for_restart(labels, others) is asks
    assert not asks_for_restart(labels | {f"{prefix}oneoff": "True"}, others)
    assert not asks_for_restart({}, {})


def test_what_is_configured_counts_and_not_what_the_list_shows() -> None:
    """The list shows an image's id once its tag has moved on."""
    (target,) = found(entry(image=f"sha256:{HEX}"), references={"id-of-web": "app:1"})
    assert str(target.ref) == "docker.io/library/app:1"


def test_in_the_middle_of_a_rollout_there_is_one_target() -> None:
    """Candidate and parked one stand for the target, and what bears its name goes before them."""
    (target,) = found(entry("web.sidecar-old"), entry("web.sidecar-new"))
    assert target.id == "docker:web"
    new, other = entry("web.sidecar-new", image="app:2"), entry("web", image="app:1")
    for entries in ((new, other), (other, new)):
        (target,) = found(*entries)
        assert target.ref.tag == "1"


@pytest.mark.parametrize(
    "image, words",
    [
        (f"sha256:{HEX}", "it runs the image id sha256:aaaaaaaaaaaa"),
        ("abcdefabcdef", "it runs the image id"),
        (f"app@sha256:{HEX}", "is pinned to sha256:aaa"),
        ("NOT A REF", "reading an image reference"),
    ],
)
def test_what_can_have_nothing_newer_is_held_with_the_reason(image: str, words: str) -> None:
    """An id, a digest, or what cannot be read."""
    (target,) = found(entry(image=image))
    assert words in target.refusal


def test_a_wrong_label_holds_its_container_with_the_reason() -> None:
    """It is a target all the same, so that its owner hears of it."""
    (target,) = found(
        entry() | {"Labels": {"sidecar.enable": "true", "sidecar.deadline": "soon", "sidecar.scope": "x"}}, scope="x"
    )
    assert "sidecar.deadline='soon'" in target.refusal


def test_pull_only_is_an_image_target() -> None:
    """With the action pull nothing is recreated: the image is kept pulled, without a gate."""
    (target,) = found(entry() | {"Labels": {"sidecar.enable": "true", "sidecar.action": "pull"}})
    assert (target.id, target.kind) == ("image:docker.io/library/app:1", Kind.IMAGE)
    assert (target.policy.min_ready_seconds, target.policy.rollback) == (0, False)


def test_sidecar_updates_itself_only_where_its_own_label_asks_for_it() -> None:
    """Whoever looks after everything by default has not asked for that, and is told how to."""
    (own,) = discover([entry()], {}, default_enable=False, scope=None, own_id="id-of-web")
    assert (own.is_own, own.refusal) == (True, None)
    (other,) = discover([entry()], {}, default_enable=False, scope=None, own_id="id-of-another")
    assert (other.is_own, other.refusal) == (False, None)
    unlabelled = entry() | {"Labels": {}}
    (held,) = discover([unlabelled], {}, default_enable=True, scope=None, own_id="id-of-web")
    assert "label it sidecar.enable=true to have it update itself" in (held.refusal or "")
    (pinned,) = discover([entry(image=f"app@sha256:{HEX}")], {}, default_enable=True, scope=None, own_id="id-of-web")
    assert "pinned" in (pinned.refusal or "")


@pytest.mark.parametrize(
    "place",
    ["/var/lib/docker/containers/{}/hostname", "/containers/storage/overlay-containers/{}/userdata/hostname"],
)
def test_a_process_finds_the_container_that_it_runs_in(place: str) -> None:
    """By the files that Docker and Podman mount from the container's folder; outside of one there are none."""
    line = f"1 2 0:1 {place.format(HEX)} /etc/hostname rw - ext4 /dev/sda rw"
    assert own_container(f"0 1 0:1 / / rw - overlay overlay rw\n{line}\n") == HEX
    assert own_container("0 1 0:1 / / rw - ext4 /dev/sda rw\n") is None


@pytest.mark.parametrize(
    "labels, default_enable, scope, reason",
    [
        ({}, False, None, "label sidecar.enable is not true"),
        ({"sidecar.enable": "false"}, True, None, "label sidecar.enable is false"),
        ({"sidecar.enable": "true", "com.docker.compose.oneoff": "True"}, False, None, "docker compose run"),
        ({"sidecar.enable": "true", "sidecar.scope": "b"}, False, "a", "its scope is b, and that of this Sidecar a"),
        ({"sidecar.enable": "true"}, False, "a", "its scope is none"),
        ({"sidecar.enable": "true"}, False, None, None),
        ({}, True, None, None),
    ],
)
def test_what_is_left_alone_has_a_reason(
    labels: dict[str, str], default_enable: bool, scope: str | None, reason: str | None
) -> None:
    """The same rules say who is a target and why the others are none."""
    one = entry() | {"Labels": labels}
    said = why_unmanaged(one, default_enable=default_enable, scope=scope)
    assert (reason is None and said is None) or (reason is not None and said is not None and reason in said)
    assert bool(discover([one], {}, default_enable=default_enable, scope=scope)) is (reason is None)


@pytest.mark.parametrize(
    "name, state, labels, is_passing",
    [
        ("0123456789ab_shop-web-1", "created", COMPOSE, True),
        ("0123456789ab_shop-web-1", "exited", COMPOSE, True),
        ("0123456789ab_shop-web-1", "running", COMPOSE, False),
        ("0123456789ab_shop-web-1", "created", {}, False),
        ("0123456789ab_", "created", COMPOSE, False),
        ("0123456789ab", "created", COMPOSE, False),
        ("0123456789_web", "created", COMPOSE, False),
        ("shop-web-1", "created", COMPOSE, False),
    ],
)
def test_what_compose_makes_for_a_moment_is_no_target(name: str, state: str, labels: Json, is_passing: bool) -> None:
    """While Compose recreates a container there is one more, which does not run; nothing is to be said of it."""
    listed = entry(name) | {"State": state, "Labels": {"sidecar.enable": "true", **labels}}
    assert found(listed) == [] if is_passing else len(found(listed)) == 1
    reason = why_unmanaged(listed, default_enable=False, scope=None)
    assert (reason is not None and "Compose recreates" in reason) is is_passing


@pytest.mark.parametrize(
    "labels, is_one",
    [
        ({"sidecar.enable": "true"}, True),
        ({"sidecar.enable": "true", "sidecar.action": "notify"}, True),
        ({"sidecar.enable": "true", "sidecar.action": "nothing"}, True),
        ({"sidecar.enable": "true", "sidecar.action": "pull"}, False),
        ({"sidecar.enable": "true", "sidecar.scope": "other"}, False),
        ({}, False),
    ],
)
def test_a_container_of_which_only_the_image_is_pulled_is_no_target(labels: dict[str, str], is_one: bool) -> None:
    """What happens to it is no hint: it would be told that a container is gone that runs."""
    assert is_recreated(labels, default_enable=False, scope=None) is is_one


# --- with Watchtower's labels -----------------------------------------------------------------------------------------

WATCHTOWER = "com.centurylinklabs.watchtower"


def bare(name: str = "web", **labels: str) -> Json:
    """Make the entry of a container without a label of ours."""
    return entry(name) | {"Labels": {f"{WATCHTOWER}.{key.replace('_', '-')}": value for key, value in labels.items()}}


@pytest.mark.parametrize(
    "rules, listed, reason",
    [
        (Rules(), bare(), None),
        (Rules(), bare(enable="false"), f"label {WATCHTOWER}.enable='false' leaves it out"),
        (Rules(disable_containers=frozenset({"web"})), bare(), "WATCHTOWER_DISABLE_CONTAINERS leaves it out"),
        (Rules(), bare() | {"Labels": {WATCHTOWER: "true"}}, "it is a Watchtower"),
        (Rules(), bare(scope="other"), None),
        (Rules(), entry() | {"Labels": {"sidecar.enable": "false"}}, "label sidecar.enable is false"),
    ],
)
def test_watchtowers_labels_say_who_is_a_target(rules: Rules, listed: Json, reason: str | None) -> None:
    """The same for the list, for the reasons, and for what the engine tells of a container."""
    said = why_unmanaged(listed, default_enable=True, scope=None, compat=rules)
    assert said is reason or (reason is not None and said is not None and reason in said)
    assert bool(discover([listed], {}, default_enable=True, scope=None, compat=rules)) is (reason is None)
    told = {**listed["Labels"], "name": "web"}
    assert is_recreated(told, default_enable=True, scope=None, compat=rules) is (reason is None)
    assert is_looked_after(listed, default_enable=True, compat=rules) is (reason is None)


@pytest.mark.parametrize(
    "scope, labels, is_one",
    [(None, {"scope": "a"}, True), ("a", {"scope": "a"}, True), ("a", {}, False), ("none", {}, True)],
)
def test_a_scope_is_watchtowers_too(scope: str | None, labels: dict[str, str], is_one: bool) -> None:
    """Without one every scope is looked after; "none" are those that have none."""
    found_ = discover([bare(**labels)], {}, default_enable=True, scope=scope, compat=Rules(scope=scope))
    # Whoever looks after every scope asks for none, and the label is left out.
    assert bool(found_) is is_one


def test_dependencies_between_containers_become_those_of_services() -> None:
    """Within a Compose project a container is called by its service, and outside of any by its name."""
    project = {"com.docker.compose.project": "shop"}
    web = bare("shop-web-1", depends_on="shop-db-1")
    web["Labels"] |= project | {"com.docker.compose.service": "web"}
    db = bare("shop-db-1")
    db["Labels"] |= project | {"com.docker.compose.service": "db"}
    one, other = bare("one", depends_on="/other"), bare("other")
    targets = discover([web, db, one, other], {}, default_enable=True, scope=None, compat=Rules())
    needs = {target.id: target.depends_on for target in targets}
    assert needs["docker:shop-web-1"] == ("docker:shop/db",)
    assert needs["docker:one"] == ("docker:other",)


def test_what_holds_a_container_is_said_in_the_words_of_its_label() -> None:
    """Of a label that is not translated, and of one whose translation is not supported or wrong."""
    signal, age = bare("a", stop_signal="SIGHUP"), bare("b", cooldown_delay="3d") | {"Image": "app:1"}
    age["Labels"]["sidecar.deadline"] = "soon"
    first, second = discover([signal, age], {}, default_enable=True, scope=None, compat=Rules())
    assert f"label {WATCHTOWER}.stop-signal='SIGHUP' is not supported" in first.refusal
    assert second.refusal is not None


def test_what_is_not_honoured_is_told_by_container() -> None:
    """For the doctor, who sees them all."""
    entries = [bare("a", lifecycle_pre_check="x"), bare("b", depends_on="c"), bare("c")]
    entries[0]["Labels"] = {f"{WATCHTOWER}.lifecycle.pre-check": "x"}
    ((name, remark),) = remarks(entries, Rules())
    assert (name, remark.name) == ("a", f"{WATCHTOWER}.lifecycle.pre-check")


def test_a_watchtower_and_what_is_labelled_for_one_are_told_apart() -> None:
    """One updates; the other is updated."""
    theirs = bare() | {"Labels": {WATCHTOWER: "true", f"{WATCHTOWER}.enable": "true"}}
    assert [is_watchtower(each) for each in (theirs, bare(enable="true"), bare() | {"Labels": None})] == [
        True,
        False,
        False,
    ]
    assert [is_labelled(each) for each in (theirs, bare(enable="true"), bare() | {"Labels": None})] == [
        False,
        True,
        False,
    ]
