"""ALLOWED_PUSHERS and ALLOWED_REPOSITORIES."""

import pytest

from sidecar.core.hint import Hint, Reading
from sidecar.core.image import ImageRef
from sidecar.sources.allowed import Admission, Allowed


def reading(*refs: str, pusher: str | None = "alice") -> Reading:
    return Reading(hints=tuple(Hint.of(ImageRef.parse(ref)) for ref in refs), pusher=pusher)


def test_without_lists_everything_is_allowed():
    """Empty settings let every pusher and repository in."""
    pushed = reading("shop/web:1.4", pusher=None)
    assert Allowed.of().admit(pushed) == Admission(pushed.hints)


@pytest.mark.parametrize(
    "patterns, pusher, refused",
    [
        (["alice"], "alice", None),
        (["bob", "ali*"], "alice", None),
        (["*"], "alice", None),
        (["*"], None, None),
        (["bob"], "alice", "the pusher 'alice' is not allowed"),
        (["alice"], "Alice", "the pusher 'Alice' is not allowed"),
        (["alice"], "alice\n", "the pusher 'alice\\n' is not allowed"),
        (["alice"], "malice", "the pusher 'malice' is not allowed"),
        (["alice"], None, "a push that does not name its pusher is not allowed"),
        (["[ab]lice"], "blice", None),
        (["a.ice"], "alice", "the pusher 'alice' is not allowed"),
    ],
)
def test_a_pusher_is_named_or_matches_a_glob(patterns: list[str], pusher: str | None, refused: str | None):
    """A pusher counts when the list names it, exactly or by a glob; nobody in particular is nobody on a list."""
    pushed = reading("shop/web:1.4", pusher=pusher)
    admission = Allowed.of(pushers=patterns).admit(pushed)
    assert admission == Admission(() if refused else pushed.hints, refused)


@pytest.mark.parametrize(
    "pattern, ref, is_allowed",
    [
        ("shop/web", "shop/web:1.4", True),
        ("docker.io/shop/web", "shop/web:1.4", True),
        ("shop/*", "shop/web:1.4", True),
        ("*/web", "shop/web:1.4", True),
        ("alpine", "alpine:3.20", True),
        ("docker.io/library/*", "alpine:3.20", True),
        ("registry.example.com/team/*", "registry.example.com/team/app/api:1", True),
        ("shop/web", "registry.example.com/shop/web:1.4", False),
        ("shop/web", "shop/web2:1.4", False),
        ("shop/web:1.4", "shop/web:1.4", False),
        ("Shop/*", "shop/web:1.4", False),
    ],
)
def test_a_repository_is_named_or_matches_a_glob(pattern: str, ref: str, is_allowed: bool):
    """A repository counts under its short or its full name, exactly or by a glob, and never by its tag."""
    pushed = reading(ref)
    expected = Admission(pushed.hints)
    if not is_allowed:
        expected = Admission((), f"not an allowed repository: {pushed.hints[0].ref.familiar_name}")
    assert Allowed.of(repositories=["unrelated", pattern]).admit(pushed) == expected


def test_of_several_hints_the_allowed_ones_stay():
    """A push beside one that is not allowed is not lost, and the reason names what is left out, once each."""
    pushed = reading("shop/web:1", "x/a:1", "x/a:2", "x/b:1", "shop/api:1")
    admission = Allowed.of(repositories=["shop/*"]).admit(pushed)
    assert [str(hint) for hint in admission.hints] == ["docker.io/shop/web:1", "docker.io/shop/api:1"]
    assert admission.refused == "not an allowed repository: x/a, x/b"


def test_a_long_reason_is_cut():
    """Of many repositories three are named."""
    admission = Allowed.of(repositories=["shop/*"]).admit(reading("x/a", "x/b", "x/c", "x/d"))
    assert admission == Admission((), "not an allowed repository: x/a, x/b, x/c, ...")


def test_who_pushed_is_judged_first():
    """A pusher that is not allowed is refused whatever was pushed."""
    allowed = Allowed.of(pushers=["bob"], repositories=["shop/*"])
    assert allowed.admit(reading("x/a")).refused == "the pusher 'alice' is not allowed"
