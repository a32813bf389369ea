"""What Sidecar looks after, and what it is recognised by."""

import pytest

from sidecar.core.image import Digest, ImageRef
from sidecar.core.policy import Policy
from sidecar.core.target import Image, Kind, Target

DIGEST = Digest("sha256:" + "a" * 64)


def target(ref: str) -> Target:
    return Target(
        id="docker:web", kind=Kind.DOCKER, ref=ImageRef.configured(ref), policy=Policy(), service="docker:web"
    )


@pytest.mark.parametrize(
    "hinted, is_meant",
    [
        ("app:1", True),
        ("docker.io/library/app:1", True),
        ("app", True),
        ("app:2", False),
        ("other:1", False),
        ("ghcr.io/library/app:1", False),
    ],
)
def test_a_hint_concerns_its_repository_and_tag(hinted: str, is_meant: bool) -> None:
    """The same repository, however it is written, and the same tag; without a tag, every tag."""
    assert target("app:1").is_meant_by(ImageRef.parse(hinted)) is is_meant


def test_a_target_is_named_without_its_kind() -> None:
    """The kind is the first part of the id."""
    assert target("app").name == "web"


def test_an_image_has_all_its_identities() -> None:
    """Its id, its digests, and what its registry says besides."""
    image = Image(id="sha256:id", digests=frozenset({DIGEST}), aliases=frozenset({"sha256:child"}))
    assert image.identities == {"sha256:id", DIGEST, "sha256:child"}
