"""Who may start now, from verdicts and dependencies."""

from dataclasses import replace

from sidecar.core.decision import Hold, Keep
from sidecar.core.order import Member, group_of, order
from sidecar.core.rollout import Revision
from sidecar.core.target import Kind
from tests.core.values import rollout, target


def member(
    name: str, verdict: object, *, service: str | None = None, needs: tuple[str, ...] = (), is_open: bool = False
) -> Member:
    return Member(
        target=target(id=f"docker:{name}", service=service or name, depends_on=needs),
        verdict=verdict,  # type: ignore[arg-type]
        is_open=is_open,
    )


CHANGES, KEPT, FAILED, STOPPED = rollout(), Keep("up to date"), Hold("unhealthy", is_failure=True), Hold("stopped")


def held(*members: Member) -> dict[str, str]:
    return {name.partition(":")[2]: hold.reason for name, hold in order(members).items()}


def test_independent_targets_may_all_start() -> None:
    """Nobody waits without a reason."""
    assert held(member("a", CHANGES), member("b", CHANGES), member("c", KEPT)) == {}


def test_replicas_of_a_service_start_one_by_one() -> None:
    """The first by name starts; the others wait for it."""
    assert held(member("web-2", CHANGES, service="web"), member("web-1", CHANGES, service="web")) == {
        "web-2": "waits for another replica of web"
    }
    assert held(member("web-1", CHANGES, service="web"), member("web-2", CHANGES, service="web", is_open=True)) == {
        "web-1": "waits for another replica of web"
    }


def test_dependencies_go_first_however_far_up() -> None:
    """A service waits while anything up its dependencies is about to change, or changes."""
    chain = (member("db", CHANGES), member("api", KEPT, needs=("db",)), member("web", CHANGES, needs=("api",)))
    assert held(*chain) == {"web": "waits for its dependency db"}
    is_open = (member("db", CHANGES, is_open=True), member("web", CHANGES, needs=("db",)))
    assert held(*is_open) == {"web": "waits for its dependency db"}
    assert held(member("db", KEPT), member("web", CHANGES, needs=("db", "unknown"))) == {}


def test_after_a_failure_its_dependents_are_held_and_the_others_go_on() -> None:
    """A failure anywhere up the dependencies holds, and counts as one further down."""
    group = (
        member("db", FAILED),
        member("api", CHANGES, needs=("db",)),
        member("web", CHANGES, needs=("api",)),
        member("mail", CHANGES),
    )
    verdicts = order(group)
    assert {name: hold.reason for name, hold in verdicts.items()} == {
        "docker:api": "dependency failed: db",
        "docker:web": "dependency failed: db",
    }
    assert all(hold.is_failure for hold in verdicts.values())


def test_a_dependency_that_is_merely_held_holds_up_nobody() -> None:
    """One that a person stopped, say, is no failure."""
    assert held(member("db", STOPPED), member("web", CHANGES, needs=("db",))) == {}


def test_a_cycle_of_dependencies_is_no_endless_way() -> None:
    """Each waits for the other; nobody hangs."""
    assert held(member("a", CHANGES, needs=("b",)), member("b", KEPT, needs=("a",))) == {}
    assert set(held(member("a", CHANGES, needs=("b",)), member("b", CHANGES, needs=("a",)))) == {"a", "b"}


def test_what_another_needs_waits_for_the_end_of_its_gate() -> None:
    """It would fail without what it depends on, and for nothing that its own image has done."""
    begun, created_never = rollout(), rollout(to=Revision(digest=rollout().to.digest))
    web = member("web", begun, needs=("api",), is_open=True)
    group = (member("db", CHANGES), member("api", KEPT, needs=("db",)), web, member("mail", CHANGES))
    assert held(*group) == {"db": "waits for web, which depends on it and is updated now"}
    assert held(member("db", CHANGES), member("web", created_never, needs=("db",), is_open=True)) == {}


def test_a_project_moves_together() -> None:
    """All containers of it, and nothing that only has its tag or its name in common."""
    shop = [target(id=f"docker:{name}", service=name, project="shop") for name in "ab"]
    others = [target(id="docker:c", service="c", project="x"), target(id="image:d", service="d", kind=Kind.IMAGE)]
    assert group_of(shop[0], [*others, *shop]) == shop


def test_without_a_project_what_depends_on_each_other_moves_together() -> None:
    """However far, in both directions; what has nothing to do with it has not."""
    needs = {"a": ("b",), "b": ("c",), "c": (), "d": ("b", "nobody"), "e": ("f",), "f": ("e",), "g": ()}
    targets = [target(id=f"docker:{name}", service=name, depends_on=on) for name, on in needs.items()]
    assert [each.name for each in group_of(targets[0], targets)] == ["a", "b", "c", "d"]
    assert [each.name for each in group_of(targets[4], targets)] == ["e", "f"]
    assert [each.name for each in group_of(targets[6], targets)] == ["g"]


def test_one_that_is_about_to_have_its_container_counts_as_begun() -> None:
    """What it depends on waits from the moment that it is carried out; of one that nobody carries out it does not."""
    created_never = rollout(to=Revision(digest=rollout().to.digest))
    web = member("web", created_never, needs=("db",), is_open=True)
    assert held(web, member("db", CHANGES)) == {}
    assert held(replace(web, is_in_hand=True), member("db", CHANGES)) == {
        "db": "waits for web, which depends on it and is updated now"
    }
