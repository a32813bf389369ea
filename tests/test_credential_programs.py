"""Docker's credential helpers: real programs, asked as Docker asks them."""

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from sidecar.credentials import Credential, Credentials
from sidecar.errors import Refused, Transient
from tests.test_credentials import HUB_KEY, SECRET, auth, configure, username


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.fixture
def configured(file: Path) -> Callable[..., Credentials]:
    return partial(configure, file)


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
