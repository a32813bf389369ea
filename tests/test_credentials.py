"""Where credentials come from: settings, Docker's config.json, credential helpers."""

import base64
import json
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sidecar.core.image import ImageRef
from sidecar.credentials import Credential, Credentials
from sidecar.errors import Refused

SECRET = "s3cr3t"
HUB_KEY = "https://index.docker.io/v1/"


def auth(username: str = "user", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.fixture
def configured(file: Path) -> Callable[..., Credentials]:
    return partial(configure, file)


def configure(file: Path, *, helper_seconds: float = 1.5, **document: object) -> Credentials:
    """Write config.json and look into it."""
    file.write_text(json.dumps(document))
    return Credentials(config_file=file, explicit={}, helper_seconds=helper_seconds)


async def username(credentials: Credentials, registry: str = "ghcr.io") -> str:
    """Find the user of a registry."""
    found = await credentials.find(registry)
    assert found is not None
    return found.username


# The value


def test_a_credential_shows_no_secret():
    """Neither password nor token is in its repr."""
    shown = repr(Credential(registry="ghcr.io", username="user", password=SECRET, identity_token=SECRET))
    assert SECRET not in shown
    assert "ghcr.io" in shown


@pytest.mark.parametrize(
    "credential, expected",
    [
        (
            Credential(registry="ghcr.io", username="user", password=SECRET),
            {"username": "user", "password": SECRET, "serveraddress": "ghcr.io"},
        ),
        (
            Credential(registry="docker.io", username="user", password=SECRET),
            {"username": "user", "password": SECRET, "serveraddress": HUB_KEY},
        ),
        (
            Credential(registry="127.0.0.1:5000", identity_token=SECRET),
            {"identitytoken": SECRET, "serveraddress": "127.0.0.1:5000"},
        ),
    ],
)
def test_the_engine_gets_what_it_wants_for_a_pull(credential, expected):
    """The engine knows Docker Hub by its old address, and a token instead of a password."""
    assert credential.auth_config() == expected


def test_a_password_may_have_any_letters():
    """Basic credentials are UTF-8."""
    assert base64.b64decode(Credential(registry="x", username="ü", password="é:").basic()[6:]).decode() == "ü:é:"


# Settings


@pytest.mark.parametrize("key", ["docker.io", "index.docker.io", HUB_KEY, "registry-1.docker.io"])
async def test_settings_win_over_the_file(file, key):
    """What is set explicitly is used, under any name of the registry; the file is not even read."""
    file.write_text("garbage")
    credentials = Credentials(config_file=file, explicit={key: ("me", SECRET)})
    found = await credentials.find("docker.io")
    assert found == Credential(registry="docker.io", username="me", password=SECRET)


async def test_without_a_file_there_are_only_settings(file):
    """No file, or none there, is no credentials, and no error."""
    for path in (None, file):
        credentials = Credentials(config_file=path, explicit={"ghcr.io": ("me", SECRET)})
        assert await credentials.find("docker.io") is None
        assert await credentials.find("ghcr.io") is not None


# The file


@pytest.mark.parametrize(
    "reference, key",
    [
        ("nginx", HUB_KEY),
        ("nginx", "https://index.docker.io/v1"),
        ("nginx", "index.docker.io"),
        ("nginx", "docker.io"),
        ("nginx", "https://docker.io"),
        ("nginx", "registry-1.docker.io"),
        ("ghcr.io/acme/app", "ghcr.io"),
        ("ghcr.io/acme/app", "https://ghcr.io"),
        ("ghcr.io/acme/app", "https://ghcr.io/"),
        ("ghcr.io/acme/app", "http://ghcr.io/v1/"),
        ("ghcr.io/acme/app", "ghcr.io/v1/"),
        ("ghcr.io/acme/app", "https://ghcr.io/v2/"),
        ("ghcr.io/acme/app", "GHCR.io"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000"),
        ("127.0.0.1:5000/app", "http://127.0.0.1:5000/v1/"),
        ("localhost/app", "localhost"),
        ("[::1]:5000/app", "[::1]:5000"),
    ],
)
async def test_a_registry_is_found_under_every_name_docker_ever_wrote(configured, reference, key):
    """Host, address, with the path of an API version or without, with a port."""
    registry = ImageRef.parse(reference).registry
    found = await configured(auths={"other.example": auth("other"), key: auth()}).find(registry)
    assert found == Credential(registry=registry, username="user", password=SECRET)


@pytest.mark.parametrize(
    "key",
    [
        "ghcr.io:5000",
        "ghcr.io/acme",
        "ghcr.io/v1/acme",
        "https://ghcr.io/token",
        "ftp://ghcr.io",
        "my.ghcr.io",
        "ghcr",
        "",
        "://",
        "ghcr.io bad",
    ],
)
async def test_credentials_of_another_name_are_not_used(configured, key):
    """Another port, a namespace below the registry, or no registry at all: nothing is guessed."""
    assert await configured(auths={key: auth()}).find("ghcr.io") is None


@pytest.mark.parametrize("key", ["ghcr", "library", "nginx", ""])
async def test_a_name_without_a_dot_is_no_registry(configured, key):
    """What a reference would take for a path of Docker Hub is not Docker Hub's credentials."""
    assert await configured(auths={key: auth()}).find("docker.io") is None


async def test_what_docker_login_keeps_for_itself_is_not_used(configured):
    """A login by browser leaves two more keys of Docker Hub, which are no credentials for pulls."""
    credentials = configured(
        auths={
            f"{HUB_KEY}access-token": auth("access"),
            f"{HUB_KEY}refresh-token": auth("refresh"),
            HUB_KEY: auth(),
        }
    )
    assert await username(credentials, "docker.io") == "user"


@pytest.mark.parametrize("keys", [[HUB_KEY, "docker.io"], ["docker.io", HUB_KEY]])
async def test_the_name_docker_uses_now_wins(configured, keys):
    """Of several names of one registry the current one counts, in whatever order; an empty entry does not."""
    names = {HUB_KEY: "current", "docker.io": "old"}
    assert await username(configured(auths={key: auth(names[key]) for key in keys}), "docker.io") == "current"
    assert await username(configured(auths={HUB_KEY: {}, "docker.io": auth("old")}), "docker.io") == "old"


@pytest.mark.parametrize(
    "entry, expected",
    [
        ({"username": "user", "password": SECRET}, Credential(registry="ghcr.io", username="user", password=SECRET)),
        ({**auth("a", "b"), "identitytoken": SECRET}, Credential(registry="ghcr.io", identity_token=SECRET)),
        ({"identitytoken": "", **auth()}, Credential(registry="ghcr.io", username="user", password=SECRET)),
        (auth("user", "with:colon"), Credential(registry="ghcr.io", username="user", password="with:colon")),
        (auth("user", f"{SECRET}\0\0"), Credential(registry="ghcr.io", username="user", password=SECRET)),
        ({}, None),
        ({"email": "me@example.org"}, None),
        ({"auth": ""}, None),
        (None, None),
    ],
)
async def test_an_entry_has_one_of_three_forms(configured, entry, expected):
    """An identity token, `auth`, or user name and password; an empty one only says that a helper has it."""
    assert await configured(auths={"ghcr.io": entry}).find("ghcr.io") == expected


@pytest.mark.parametrize("text", ["!", "dXNlcg==", base64.b64encode(b"\xff:\xff").decode()])
async def test_an_unreadable_auth_names_the_file_and_the_registry(configured, file, text):
    """Not base64, no colon, no UTF-8: said without showing it."""
    with pytest.raises(Refused) as caught:
        await configured(auths={"ghcr.io": {"auth": text}}).find("ghcr.io")
    assert str(caught.value) == (
        f"reading registry credentials in {str(file)!r}: `auth` of ghcr.io is not the base64 of user:password"
    )


@pytest.mark.parametrize(
    "content",
    [
        f"{{{SECRET}",
        "",
        f'["{SECRET}"]',
        f'"{SECRET}"',
        f'{{"auths": ["{SECRET}"]}}',
        f'{{"credsStore": ["{SECRET}"]}}',
        f'{{"credHelpers": "{SECRET}"}}',
        "[" * 100_000,
    ],
)
async def test_an_unreadable_file_is_named_and_not_shown(file, content):
    """Whoever corrects it is told which file; what it holds is not told."""
    file.write_text(content)
    with pytest.raises(Refused) as caught:
        await Credentials(config_file=file, explicit={}).find("ghcr.io")
    told = "".join(traceback.format_exception(caught.value))
    assert str(caught.value).startswith(f"reading registry credentials in {str(file)!r}: it is not ")
    assert SECRET not in told


async def test_a_folder_in_the_files_place_is_named(file):
    """A bind mount of a file that was not there makes a folder."""
    file.mkdir()
    with pytest.raises(Refused, match=r"config\.json': Is a directory"):
        await Credentials(config_file=file, explicit={}).find("ghcr.io")


async def test_the_file_is_read_again_when_it_changes(configured, file):
    """A new login is used without a restart; a corrected and a removed file too."""
    credentials = configured(auths={"ghcr.io": auth("first")})
    assert await username(credentials) == "first"
    file.write_text(json.dumps({"auths": {"ghcr.io": auth("another")}}))
    assert await username(credentials) == "another"
    file.write_text("broken")
    for _ in range(2):
        with pytest.raises(Refused):
            await credentials.find("ghcr.io")
    file.write_text(json.dumps({"auths": {"ghcr.io": auth("third")}}))
    assert await username(credentials) == "third"
    file.unlink()
    assert await credentials.find("ghcr.io") is None


async def test_an_unchanged_file_is_not_read_again(configured, file, monkeypatch):
    """Looking at its date is enough."""
    credentials = configured(auths={"ghcr.io": auth()})
    await credentials.find("ghcr.io")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"read {path}"))
    assert await credentials.find("ghcr.io") is not None
