"""Where credentials come from: settings, Docker's config.json, credential helpers."""

import asyncio
import base64
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sidecar.core.image import ImageRef
from sidecar.credentials import Credential, Credentials
from sidecar.errors import Refused, Transient

SECRET = "s3cr3t"
HUB_KEY = "https://index.docker.io/v1/"


def auth(username: str = "user", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.fixture
def configured(file: Path) -> Callable[..., Credentials]:
    """Write config.json and look into it."""

    def configure(*, helper_seconds: float = 1.5, **document: object) -> Credentials:
        file.write_text(json.dumps(document))
        return Credentials(config_file=file, explicit={}, helper_seconds=helper_seconds)

    return configure


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Install a real credential helper; it writes down what it was asked."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    (tmp_path / "bin").mkdir()

    def install(name: str, script: str) -> Path:
        program, asked = tmp_path / "bin" / f"docker-credential-{name}", tmp_path / f"{name}.asked"
        program.write_text(f'#!/bin/sh\necho "$* $(cat)" >> {asked}\n{script}\n')
        program.chmod(0o755)
        return asked

    return install


def prints(username: str = "user", secret: str = SECRET) -> str:
    return f"echo '{json.dumps({'ServerURL': 'x', 'Username': username, 'Secret': secret})}'"


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


async def username(credentials: Credentials, registry: str = "ghcr.io") -> str:
    found = await credentials.find(registry)
    assert found is not None
    return found.username


async def test_an_unchanged_file_is_not_read_again(configured, file, monkeypatch):
    """Looking at its date is enough."""
    credentials = configured(auths={"ghcr.io": auth()})
    await credentials.find("ghcr.io")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"read {path}"))
    assert await credentials.find("ghcr.io") is not None


# Helpers


@pytest.mark.parametrize(
    "document, registry, address",
    [
        ({"credsStore": "one"}, "ghcr.io", "ghcr.io"),
        ({"credsStore": "one"}, "docker.io", HUB_KEY),
        ({"credsStore": "two", "credHelpers": {"ghcr.io": "one"}}, "ghcr.io", "ghcr.io"),
        ({"credsStore": "two", "credHelpers": {"https://ghcr.io": "one"}}, "ghcr.io", "ghcr.io"),
        ({"credHelpers": {"docker.io": "one"}}, "docker.io", HUB_KEY),
        ({"credsStore": "one", "auths": {"ghcr.io": auth("file")}}, "ghcr.io", "ghcr.io"),
        ({"credsStore": "one", "auths": {"ghcr.io": {}}}, "ghcr.io", "ghcr.io"),
    ],
)
async def test_a_helper_is_asked_for_its_registry(configured, helper, document, registry, address):
    """The registry's own helper, else the store, before the file; it reads the address that Docker writes there."""
    asked = helper("one", prints("helped"))
    found = await configured(**document).find(registry)
    assert found == Credential(registry=registry, username="helped", password=SECRET)
    assert asked.read_text() == f"get {address}\n"


async def test_a_registry_with_an_empty_helper_is_in_the_file(configured, helper):
    """An empty name switches the helper off for one registry; another registry's helper is not asked."""
    asked = helper("one", prints("helped"))
    credentials = configured(
        credHelpers={"ghcr.io": "", "quay.io": "one"}, auths={"ghcr.io": auth("file"), "gcr.io": auth("file")}
    )
    assert [await username(credentials, one) for one in ("ghcr.io", "gcr.io")] == ["file", "file"]
    assert not asked.exists()


async def test_a_helper_can_give_an_identity_token(configured, helper):
    """`<token>` in the user's place says that the secret is one."""
    helper("one", prints("<token>", SECRET))
    found = await configured(credsStore="one").find("ghcr.io")
    assert found == Credential(registry="ghcr.io", identity_token=SECRET)


@pytest.mark.parametrize("message", ["credentials not found in native keychain", "Credentials not found"])
async def test_a_helper_may_have_nothing(configured, helper, message):
    """Then the file is looked into, and without an entry there the registry is asked anonymously."""
    helper("one", f"echo '{message}'; exit 1")
    assert await configured(credsStore="one").find("ghcr.io") is None
    found = await configured(credsStore="one", auths={"ghcr.io": auth()}).find("ghcr.io")
    assert found is not None


async def test_a_missing_helper_is_named(configured, file):
    """It is said which, who asks for it and what to do; a store of a desktop is not in a container."""
    with pytest.raises(Refused) as caught:
        await configured(credsStore="desktop").find("ghcr.io")
    assert str(caught.value) == (
        "asking docker-credential-desktop for the credentials of ghcr.io, "
        f"the helper that {str(file)!r} names: No such file or directory; "
        "install it where Sidecar runs, or put the credentials into the file without a helper"
    )


async def test_a_helper_that_is_no_program_is_named(configured, helper, tmp_path):
    """A file that cannot be run is as good as none."""
    helper("one", "")
    (tmp_path / "bin/docker-credential-one").chmod(0o644)
    with pytest.raises(Refused, match=r"docker-credential-one.*Permission denied"):
        await configured(credsStore="one").find("ghcr.io")


@pytest.mark.parametrize("name", ["../evil", "a b", "a;reboot", "a\nb", "-x/", 7, ["one"]])
async def test_a_helpers_name_cannot_be_a_path_or_a_command(configured, name):
    """Letters, digits, dots, underscores and hyphens name a program on the path, and nothing else."""
    with pytest.raises(Refused, match=r"config\.json': the credential helper of ghcr\.io has a name with other than"):
        await configured(credHelpers={"ghcr.io": name}).find("ghcr.io")


@pytest.mark.parametrize(
    "script, reason",
    [
        (f"echo {SECRET}; exit 3", "it ended with status 3"),
        (f"echo {SECRET}", "it answered something else"),
        (f"echo '[\"{SECRET}\"]'", "it answered something else"),
        (f'echo \'{{"Username": "{SECRET}"}}\'', "it answered something else"),
        (f'echo \'{{"Username": 7, "Secret": "{SECRET}"}}\'', "it answered something else"),
        ("kill -9 $$", "it ended with status -9"),
    ],
)
async def test_a_helper_that_fails_may_work_later(configured, helper, script, reason):
    """A locked store, a broken answer: what it said is not shown, but how to see it."""
    helper("one", script)
    with pytest.raises(Transient) as caught:
        await configured(credsStore="one").find("ghcr.io")
    assert str(caught.value) == (
        f"asking docker-credential-one for the credentials of ghcr.io: {reason}; "
        "try it: echo ghcr.io | docker-credential-one get"
    )
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("script", ["exec sleep 60", "sleep 60 & wait", "sleep 60 & exit 0"])
async def test_a_helper_that_hangs_is_ended(configured, helper, tmp_path, script):
    """After its time it is killed, with whatever it started."""
    helper("one", f"echo $$ > {tmp_path}/pid; {script}")
    with pytest.raises(Transient, match=r"no answer within 0\.3 seconds"):
        await configured(credsStore="one", helper_seconds=0.3).find("ghcr.io")
    assert_ended(int((tmp_path / "pid").read_text()))


async def test_a_helper_ends_with_who_asked(configured, helper, tmp_path):
    """A question that is cancelled leaves no process behind."""
    helper("one", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    question = asyncio.create_task(configured(credsStore="one").find("ghcr.io"))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110 - a file has no event
        await asyncio.sleep(0.005)
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await question
    assert_ended(int((tmp_path / "pid").read_text()))


async def test_a_helper_in_another_language_works(configured, helper, tmp_path):
    """It is a program like any other, and need not read its input."""
    program = tmp_path / "bin/docker-credential-py"
    answer = {"Username": "user", "Secret": SECRET}
    program.write_text(f"#!{sys.executable}\nprint('''{json.dumps(answer)}''')\n")
    program.chmod(0o755)
    assert await configured(credsStore="py").find("ghcr.io") is not None


def assert_ended(group: int) -> None:
    """No process of a group runs (a killed one may take a moment, and waits for whoever adopted it to be buried)."""
    deadline = time.monotonic() + 1
    while running := [stat for stat in _stats() if stat[2] == str(group) and stat[0] not in "ZX"]:
        assert time.monotonic() < deadline, running
        time.sleep(0.005)


def _stats() -> Iterator[list[str]]:
    """For every process: its state, parent, group, and more."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield path.read_text().rpartition(")")[2].split()
