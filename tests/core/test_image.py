"""References are read as Docker and OCI distribution read them."""

import pytest

from sidecar.core.image import Digest, ImageRef

HEX = "a" * 64
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("library/nginx", "docker.io/library/nginx"),
        ("account/app:dev", "docker.io/account/app:dev"),
        ("docker.io/nginx", "docker.io/library/nginx"),
        ("index.docker.io/account/app", "docker.io/account/app"),
        ("registry-1.docker.io/account/app", "docker.io/account/app"),
        ("registry.hub.docker.com/account/app", "docker.io/account/app"),
        ("GHCR.io/owner/app", "ghcr.io/owner/app"),
        ("localhost/app", "localhost/app"),
        ("host:5000/app", "host:5000/app"),
        ("host:5000/a/b/c:x", "host:5000/a/b/c:x"),
        ("127.0.0.1:5000/app:2", "127.0.0.1:5000/app:2"),
        ("[::1]:5000/app", "[::1]:5000/app"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx:1@{DIGEST}"),
        ("  nginx\n", "docker.io/library/nginx"),
        ("a__b/c-d--e.f", "docker.io/a__b/c-d--e.f"),
    ],
)
def test_a_reference_is_normalised(text: str, expected: str) -> None:
    """However short a reference is written, it reads the same in full."""
    assert str(ImageRef.parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Nginx",
        "nginx:",
        "nginx:-x",
        "nginx:" + "t" * 129,
        "nginx@",
        "nginx@sha256:short",
        f"nginx@sha256:{HEX.upper()}",
        "a//b",
        "/a",
        "a/",
        "host:5000:6000/app",
        "host:65536/app",
        "-host.test/app",
        "a" * 256,
        "app$(reboot)",
        "app;rm",
        "../../etc/passwd",
        "a_._b",
    ],
)
def test_what_is_no_reference_is_refused_by_name(text: str) -> None:
    """A text outside the grammar raises, and the message shows it."""
    with pytest.raises(ValueError, match=r"reading a"):
        ImageRef.parse(text)


def test_only_the_engines_reading_adds_latest() -> None:
    """A payload without a tag names a repository; a container's reference without one means latest."""
    assert ImageRef.parse("nginx").tag is None
    assert ImageRef.configured("nginx").tag == "latest"
    assert ImageRef.configured("nginx:1").tag == "1"
    assert ImageRef.configured(f"nginx@{DIGEST}").tag is None


@pytest.mark.parametrize(
    "text, familiar",
    [
        ("docker.io/library/nginx:1", "nginx:1"),
        ("docker.io/account/app", "account/app"),
        ("ghcr.io/library/app:1", "ghcr.io/library/app:1"),
        (f"nginx@{DIGEST}", f"nginx@{DIGEST}"),
    ],
)
def test_the_familiar_form_is_dockers(text: str, familiar: str) -> None:
    """What is shown is what Docker shows."""
    assert ImageRef.parse(text).familiar == familiar


def test_a_reference_gives_others_of_its_repository() -> None:
    """Another tag drops the digest; the exact reference drops the tag."""
    ref = ImageRef.parse(f"nginx:1@{DIGEST}")
    assert str(ref.with_tag("2")) == "docker.io/library/nginx:2"
    assert ref.at(Digest(DIGEST)) == f"docker.io/library/nginx@{DIGEST}"


def test_a_digest_is_text_and_nothing_else() -> None:
    """A digest is its text; another text is refused and shown."""
    assert Digest(DIGEST) == DIGEST
    assert Digest("sha512:" + "b" * 128).startswith("sha512:")
    with pytest.raises(ValueError, match="'latest'"):
        Digest("latest")
