"""Manifests, indexes and platforms."""

import json

import pytest

from sidecar.core.image import Digest
from sidecar.oci.manifest import Child, Manifest, Platform, digest_of, is_digest_of, read_manifest
from tests.oci.internet import image, index


def digest(letter: str) -> Digest:
    return Digest(f"sha256:{letter * 64}")


@pytest.mark.parametrize(
    "wanted, offered, chosen",
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["linux/386"], "linux/386"),
        ("linux/amd64", ["linux/386", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["linux/amd64/v3"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], "linux/amd64/v2"),
        ("linux/amd64/v1", ["linux/amd64"], "linux/amd64"),
        ("linux/x86_64", ["linux/amd64"], "linux/amd64"),
        ("linux/386", ["linux/amd64"], None),
        ("linux/i386", ["linux/386"], "linux/386"),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64/v8", ["linux/arm64"], "linux/arm64"),
        ("linux/aarch64/8", ["linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm64/v9", ["linux/arm64"], "linux/arm64"),
        ("linux/arm", ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v7"),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], "linux/arm/v5"),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/arm/v7", ["linux/arm"], "linux/arm"),
        ("linux/armhf", ["linux/arm/v7"], "linux/arm/v7"),
        ("linux/armel", ["linux/arm/v6", "linux/arm/v5"], "linux/arm/v6"),
        ("linux/riscv64", ["linux/amd64", "linux/riscv64"], "linux/riscv64"),
        ("windows/amd64", ["linux/amd64", "windows/amd64"], "windows/amd64"),
        ("Linux/AMD64", ["linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["unknown/unknown"], None),
        ("linux/amd64", ["unknown/unknown", ""], ""),
        ("linux/amd64", ["", ""], None),
        ("linux/amd64", ["", "linux/amd64"], "linux/amd64"),
        ("", ["linux/amd64"], None),
    ],
)
def test_the_platform_is_chosen_as_containerd_chooses(wanted, offered, chosen):
    """The same platform first, then what runs on it as well; an entry without a platform only where it is the one."""
    letters = "abcdef"[: len(offered)]
    document = index(*zip(offered, map(digest, letters), strict=True))
    expected = None if chosen is None else digest(letters[offered.index(chosen)])
    assert read_manifest(json.dumps(document).encode()).child_for(Platform.parse(wanted)) == expected


def test_a_manifest_names_its_configuration():
    """Of an image's manifest the configuration's digest counts."""
    assert read_manifest(json.dumps(image("c")).encode()) == Manifest(config=digest("c"))


def test_an_entry_may_have_a_null_variant():
    """What is null in JSON is not there."""
    entry = {"digest": digest("a"), "platform": {"os": "linux", "architecture": "arm64", "variant": None}}
    read = read_manifest(json.dumps({"manifests": [entry]}).encode())
    assert read.children == (Child(digest("a"), Platform("linux", "arm64")),)


@pytest.mark.parametrize(
    "body, reason",
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "neither"),
        (b"null", "neither"),
        (b'{"layers": []}', "neither"),
        (b'{"config": {}, "layers": []}', "neither"),
        (b'{"config": {"digest": 7}}', "neither"),
        (b'{"manifests": {}}', "neither"),
        (json.dumps({**image(), **index()}).encode(), "neither"),
        (b'{"manifests": [], "layers": []}', "neither"),
        (b'{"config": {"digest": "sha256:short"}}', "sha256:short"),
        (b'{"manifests": [{"digest": "latest"}]}', "latest"),
        (b'{"manifests": [{"size": 2}]}', "without a digest"),
        (b'{"manifests": ["x"]}', "without a digest"),
    ],
)
def test_what_is_no_manifest_is_said_to_be_none(body, reason):
    """Not JSON, neither manifest nor index, or both at once: it is not guessed at."""
    with pytest.raises(ValueError, match=reason):
        read_manifest(body)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_digest_is_checked_by_its_own_algorithm(algorithm):
    """Content is what its digest says, to the last byte."""
    one = digest_of(b"content", algorithm=algorithm)
    assert is_digest_of(one, b"content")
    assert not is_digest_of(one, b"content ")
