"""A hint says that a reference may mean something else now, and cannot say what."""

import pytest

from sidecar.core.hint import Hint
from sidecar.core.image import ImageRef

DIGEST = "sha256:" + "a" * 64


def test_a_hint_cannot_carry_a_digest() -> None:
    """Distrust is in the type: making one with a digest is an error."""
    with pytest.raises(ValueError, match="carries a digest"):
        Hint(ImageRef.parse(f"app:1@{DIGEST}"))


def test_a_digest_in_the_place_of_a_tag_leaves_the_repository() -> None:
    """What is left of a reference by digest is its repository; a tag beside it stays."""
    assert str(Hint.of(ImageRef.parse(f"app@{DIGEST}"))) == "docker.io/library/app"
    assert str(Hint.of(ImageRef.parse(f"app:1@{DIGEST}"))) == "docker.io/library/app:1"
