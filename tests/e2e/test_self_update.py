"""Sidecar updates the container that it runs in itself: to a good image, to bad ones, and killed on the way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.shipped import ADMIN_TOKEN, TOKEN, Shipped, until
from tests.integration.world import free_port
from tests.testbed.api import ApiError
from tests.testbed.errors import PartError
from tests.testbed.registry import Registry

pytestmark = pytest.mark.timeout(600)
TARGET = "docker:sidecar"
LABELS = {"sidecar.enable": "true", "sidecar.min-ready": "1s", "sidecar.deadline": "1m"}
# Works as a helper, and as nothing else.
ONLY_A_HELPER = '#!/bin/sh\n[ "$1" = take-over ] && exec sidecar "$@"\necho "this one is broken" >&2\nexit 1\n'
CHECK = "HEALTHCHECK --interval=1s --timeout=5s --retries=2"
GOOD = f"{CHECK} CMD sidecar healthcheck --ready\n"
BAD = {
    "ends at once": 'COPY --chmod=755 broken /broken\nENTRYPOINT ["/broken"]\n',
    "is never well": f"{CHECK} CMD false\n",
    "cannot even help": 'ENTRYPOINT ["/bin/false"]\n',
}
REASONS = {
    "ends at once": "was restarted",
    "is never well": "became unhealthy",
    "cannot even help": "the helper of its image ended",
}


class Own:
    """Sidecar as a container that looks after itself, and the images that are pushed for it."""

    def __init__(self, shipped: Shipped, registry: Registry, folder: Path) -> None:
        self.shipped = shipped
        self.engine = shipped.engine
        self.registry = registry
        self.folder = folder
        self.reference = registry.reference("sidecar:stable")
        (folder / "broken").write_text(ONLY_A_HELPER)

    def push(self, version: str, more: str) -> None:
        """Push Sidecar's image with something about it changed, and leave nothing of it on the engine."""
        lines = f"FROM {self.shipped.image}\nLABEL version={version}\n{more}"
        (self.folder / "Dockerfile").write_text(lines)
        self.engine.build(self.folder, self.reference)
        self.engine.docker("push", "--quiet", self.reference)
        self.engine.docker("rmi", self.reference)

    def start(self) -> None:
        """Run version 1 as the README says, with its own label."""
        self.push("1", GOOD)
        self.engine.docker("pull", "--quiet", self.reference)
        environ = {"TOKEN": TOKEN, "ADMIN_TOKEN": ADMIN_TOKEN, "PORT": str(free_port()), "DEBOUNCE_SECONDS": "0.2"}
        options = [f"--env=SIDECAR_{name}={value}" for name, value in environ.items()]
        options += [f"--label={name}={value}" for name, value in LABELS.items()]
        self.shipped.image = self.reference
        self.shipped.start(*self.shipped.usual, "--network=host", "--restart=unless-stopped", *options)
        self.shipped.until_told("target.kept", target=TARGET)

    def update(self) -> None:
        """Ask it to look at itself."""
        answer = self.shipped.sidecar("update", "sidecar")
        assert answer.status == 0, answer

    def version(self) -> str:
        """Say which version bears the name; empty while none does."""
        with suppress(ApiError):
            return str(self.shipped.inspect()["Config"]["Labels"]["version"])
        return ""

    def containers(self) -> dict[str, str]:
        """Give the state of each container by its name."""
        found = self.engine.api.get("/containers/json", all=True)
        return {each["Names"][0].removeprefix("/"): each["State"] for each in found}

    def pid(self, name: str) -> int:
        """Give the first process of a container, as the engine numbers it; 0 while it does not run."""
        return int(self.engine.api.get(f"/containers/{name}/json")["State"]["Pid"])

    def history(self) -> str:
        """Give what it remembers of itself; nothing while it is not there."""
        answer = self.shipped.sidecar("history", "--json", "--target", TARGET)
        return answer.out if answer.status == 0 else ""

    def await_end(self, version: str, phase: str) -> None:
        """Wait until one container is left, of this version, which remembers how that came."""
        until(lambda: self.is_at_rest(version, phase), f"version {version} is {phase}", tail=self.tail)

    def is_at_rest(self, version: str, phase: str) -> bool:
        """Say whether nothing more is to be done."""
        is_alone = self.containers() == {"sidecar": "running"}
        return is_alone and self.version() == version and f'"{phase}"' in self.history()

    def tail(self) -> str:
        """Give what everybody said."""
        logs = {name: self.shipped.docker("logs", "--tail=60", name) for name in self.containers()}
        return "\n".join(f"== {name}\n{answer.out}{answer.err}" for name, answer in logs.items())

    def check(self, before: dict[str, Any]) -> None:
        """Hold that it is as it was made, knows its targets, and has forgotten nothing."""
        after = self.shipped.inspect()
        for part in ("Binds", "RestartPolicy", "NetworkMode", "GroupAdd", "ReadonlyRootfs", "CapDrop", "SecurityOpt"):
            assert after["HostConfig"][part] == before["HostConfig"][part]
        assert after["Config"]["Image"] == self.reference
        assert {mount["Name"] for mount in after["Mounts"] if mount["Type"] == "volume"} == {"sidecar-data"}
        self.shipped.until(lambda: self.shipped.sidecar("healthcheck", "--ready").status == 0, "it is ready")
        volumes = self.engine.api.get("/volumes")["Volumes"]
        assert [volume["Name"] for volume in volumes] == ["sidecar-data"]
        assert self.shipped.python("import os; print(os.path.exists('/data/handover.json'))") == "False"


@pytest.fixture
def own(shipped: Shipped, registry: Callable[..., Registry], tmp_path: Path) -> Own:
    """Version 1, which looks after itself."""
    made = Own(shipped, registry(), tmp_path)
    made.start()
    return made


def test_it_updates_itself(own: Own) -> None:
    """A helper of the new image takes over and is gone afterwards; a second update follows the same way."""
    before = own.shipped.inspect()
    for version in ("2", "3"):
        own.push(version, GOOD)
        own.update()
        own.await_end(version, "succeeded")
        own.check(before)


@pytest.mark.parametrize("how", BAD)
def test_one_that_is_broken_is_taken_back(own: Own, how: str) -> None:
    """The old one runs again, knows why, and does not try that digest again."""
    before = own.shipped.inspect()
    own.push("2", BAD[how])
    own.update()
    own.await_end("1", "rolled_back")
    own.check(before)
    assert own.shipped.inspect()["Id"] == before["Id"]
    assert REASONS[how] in own.history()
    own.update()
    held = own.shipped.until_told("target.held", target=TARGET)
    assert "failed here before" in held["reason"] or "waits" in held["reason"] or "helper" in held["reason"]
    own.push("3", GOOD)
    own.update()
    own.await_end("3", "succeeded")


@pytest.mark.parametrize("victim", ["sidecar.sidecar-helper", "sidecar", "sidecar.sidecar-new"])
def test_whoever_is_killed_on_the_way_it_ends_as_it_should(own: Own, victim: str) -> None:
    """Helper, old or new one, as soon as it is seen to run: the engine starts it again, and it goes on."""
    before = own.shipped.inspect()
    own.push("2", GOOD)
    own.update()

    def killed() -> bool:
        with suppress(PartError, ApiError):
            name = "sidecar" if victim != "sidecar.sidecar-helper" else victim
            is_due = own.version() == ("2" if victim == "sidecar.sidecar-new" else "1") or name == victim
            if is_due and "sidecar.sidecar-helper" in own.containers() and (pid := own.pid(name)) > 0:
                own.engine.machine.run("sh", "-c", f"kill -9 {pid}")
                return True
        return False

    until(killed, f"{victim} is killed", tail=own.tail)
    own.await_end("2", "succeeded")
    own.check(before)
