"""Kill the daemon around every changing engine call of an update and of a rollback, start it again, and look.

Many runs go on side by side on one engine: each has its own container, repository, daemon and proxy, and its daemon
sees that container only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemon import Daemon
from tests.integration.engine_proxy import EngineProxy, Fault
from tests.integration.world import World, free_port
from tests.testbed import images
from tests.testbed.api import ApiError
from tests.testbed.engine import NEW, OLD, Engine
from tests.testbed.errors import PartError
from tests.testbed.images import Behaviour, Health
from tests.testbed.parts import STORE_VERSION, Parts
from tests.testbed.registry import Registry

# As many at once as keep two cores busy.
SIDE_BY_SIDE = 6
# Time decides nothing: a bad version fails by its health check, which says no at once, and a good one may take long.
LABELS = {"sidecar.enable": "true", "sidecar.min-ready": "0.5s", "sidecar.deadline": "10m"}
PATIENT = Health(interval_ms=1000, timeout_ms=30_000, retries=1000)
IMPATIENT = Health(interval_ms=250, timeout_ms=30_000, retries=2)
SETTINGS = {"SIDECAR_DEBOUNCE_SECONDS": "0.1"}
PATIENCE_SECONDS = 180.0
MARKER = "/data/marker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """An update, and how it ends.

    Attributes:
        outcomes: how the reason may begin that the target is left with.
        answer: how the reason begins that a further hint gets.
    """

    behaviour: Behaviour
    health: Health
    restart: dict[str, Any]
    outcomes: tuple[str, ...]
    answer: str
    is_rolled_back: bool = False


SCENARIOS = {
    "update": Scenario(
        behaviour=Behaviour.HEALTHY,
        health=PATIENT,
        restart={"Name": "unless-stopped", "MaximumRetryCount": 0},
        outcomes=("updated to {digest}", "up to date"),
        answer="up to date",
    ),
    "rollback": Scenario(
        behaviour=Behaviour.UNHEALTHY,
        health=IMPATIENT,
        restart={"Name": "on-failure", "MaximumRetryCount": 7},
        outcomes=("rolled_back: became unhealthy", "{digest} failed here before"),
        answer="{digest} failed here before (became unhealthy",
        is_rolled_back=True,
    ),
}


@dataclass
class Run:
    """One container on version 1, one daemon that looks after this one alone, and the proxy between it and the engine.

    Attributes:
        before: the inspect of the container before the update.
        volumes: every anonymous volume that a container of this run was made with, as far as its creation was answered.
    """

    scenario: Scenario
    world: World
    name: str
    proxy: EngineProxy
    before: dict[str, Any] = field(default_factory=dict)
    volumes: set[str] = field(default_factory=set)
    digest: str = ""

    @classmethod
    def make(cls, scenario: Scenario, engine: Engine, registry: Registry, folder: Path) -> Run:
        """Make everything but the update."""
        folder.mkdir()
        name = f"web-{folder.name}"
        proxy = EngineProxy(engine.socket, folder / "engine.sock")
        settings = {**SETTINGS, "SIDECAR_SCOPE": name, "SIDECAR_DOCKER_HOST": proxy.host}
        daemon = Daemon(engine, folder, port=free_port(), environ=settings)
        run = cls(scenario, World(engine, registry, daemon, tag=f"{name}:1"), name, proxy)
        proxy.on_created = run.note_volumes
        run.start_container()
        return run

    def start_container(self) -> None:
        """Run the container on version 1, with something in its volume."""
        self.world.push_image("1", images.web(f"{self.name}-1", health=PATIENT, Volumes={"/data": {}}))
        api, (repository, _, tag) = self.world.engine.api, self.world.ref.rpartition(":")
        api.post("/images/create", fromImage=repository, tag=tag)
        body = {
            "Image": self.world.ref,
            "Labels": {**LABELS, "sidecar.scope": self.name},
            "HostConfig": {"RestartPolicy": self.scenario.restart},
        }
        ident = api.post("/containers/create", body, name=self.name)["Id"]
        api.post(f"/containers/{ident}/start")
        marker = images.packed({MARKER: "data"}).content
        api.request("PUT", f"/containers/{ident}/archive", query={"path": "/"}, body=marker)
        self.before = self.inspect()
        self.note_volumes(ident)

    def end(self) -> None:
        """Leave nothing that runs."""
        self.world.daemon.kill()
        self.proxy.close()
        api = self.world.engine.api
        for container in self.containers():
            api.delete(f"/containers/{container['Id']}", force=True, v=True)
        for mount in self.before["Mounts"]:
            api.delete(f"/volumes/{mount['Name']}", force=True)

    def inspect(self) -> dict[str, Any]:
        """Look at the container in its place."""
        found: dict[str, Any] = self.world.engine.api.get(f"/containers/{self.name}/json")
        return found

    def containers(self) -> list[dict[str, Any]]:
        """List what bears the container's name, or one that was made from it."""
        found = self.world.engine.api.get("/containers/json", all=True)
        return [each for each in found if each["Names"][0].partition(".")[0] == f"/{self.name}"]

    def note_volumes(self, ident: str) -> None:
        """Remember the volumes of a container that has just been created."""
        mounts = self.world.engine.api.get(f"/containers/{ident}/json")["Mounts"]
        self.volumes |= {mount["Name"] for mount in mounts}

    # --- the update -------------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Start the daemon, push version 2 and tell it."""
        daemon, scenario = self.world.daemon, self.scenario
        daemon.start()
        daemon.until_told("target.kept", target=f"docker:{self.name}")
        volumes = {"/data": {}, "/cache": {}}
        image = images.web(f"{self.name}-2", scenario.behaviour, health=scenario.health, Volumes=volumes)
        self.digest = self.world.push_image("2", image)
        self.hint()

    def hint(self) -> str:
        """Ask the daemon to look at the container, and give the id by which that is followed."""
        status, body = self.world.daemon.post("/api/v1/updates", {"what": self.name})
        assert status == 202
        return str(body["delivery"])

    def kill_at(self, number: int, faults: Sequence[Fault]) -> None:
        """Kill the daemon at the n-th changing call of the update, start it, kill it at its next one, and so on."""
        daemon, proxy = self.world.daemon, self.proxy
        proxy.arm(number, faults[0], daemon.kill)
        self.update()
        daemon.until(proxy.sprung.is_set, f"{self.name} makes {number} calls", seconds=PATIENCE_SECONDS)
        for fault in faults[1:]:
            proxy.arm(len(proxy.calls) + 1, fault, daemon.kill)
            daemon.start(wait=False)
            daemon.until(self.is_killed_or_done, f"{self.name} is killed again", seconds=PATIENCE_SECONDS)
            daemon.kill()  # it may have been the last call
        proxy.disarm()
        daemon.start()

    def is_killed_or_done(self) -> bool:
        """Say whether nothing more will come of the daemon as it is now."""
        if self.proxy.sprung.is_set():
            return True
        try:
            return self.is_at_rest()
        except (OSError, HTTPException):  # not ready yet, or killed while it answered
            return False

    def calls(self) -> list[str]:
        """Give the changing calls so far, in words that are the same for every run."""
        return [call.replace(self.name, "web") for call in self.proxy.calls]

    # --- the end ----------------------------------------------------------------------------------------------------

    def is_at_rest(self) -> bool:
        """Say whether no rollout is open and the last word on the target is what it has to be."""
        words = tuple(word.format(digest=self.digest) for word in self.scenario.outcomes)
        (target,) = self.world.daemon.get("/api/v1/targets")[1]["targets"]
        is_judged = target["available"] == self.digest and target["reason"].startswith(words)
        return is_judged and target["phase"] == ""

    def await_rest(self) -> None:
        """Wait until nothing more will happen by itself."""
        self.world.daemon.until(self.is_at_rest, f"{self.name} is at rest", seconds=PATIENCE_SECONDS)

    def check(self) -> None:
        """Hold what is promised at rest, whatever happened on the way there."""
        self.check_container()
        self.check_images()
        self.check_volumes()
        self.check_hint()
        assert self.world.daemon.lines("pass.crashed") == []

    def check_container(self) -> None:
        """One container is left, under its own name: the right one, healthy, restarted as before."""
        assert [each["Names"] for each in self.containers()] == [[f"/{self.name}"]]
        after = self.inspect()
        assert (after["Id"] == self.before["Id"]) is self.scenario.is_rolled_back
        assert f"VERSION={self.name}-{1 if self.scenario.is_rolled_back else 2}" in after["Config"]["Env"]
        assert after["Config"]["Image"] == self.world.ref
        assert after["HostConfig"]["RestartPolicy"] == self.scenario.restart
        assert after["State"]["Status"] == "running"
        assert after["State"]["Health"]["Status"] == "healthy"

    def check_images(self) -> None:
        """The reference names what runs, beside it only the image before the update has a name, what failed is gone."""
        expected = {self.world.ref: self.inspect()["Image"]}
        if not self.scenario.is_rolled_back:
            expected[f"sidecar-previous:{self.name}"] = self.before["Image"]
        found = self._images()
        # Where containerd keeps the images, a pull by digest is told as if it were a tag.
        tags = {tag: image["Id"] for image in found for tag in image["RepoTags"] or [] if "@" not in tag}
        previous, own = f"sidecar-previous:{self.name}", f"{self.world.ref.rpartition(':')[0]}:"
        assert {tag: tags[tag] for tag in tags if tag == previous or tag.startswith(own)} == expected
        digests = {digest.partition("@")[2] for image in found for digest in image["RepoDigests"] or []}
        assert (self.digest in digests) is not self.scenario.is_rolled_back

    def _images(self) -> list[dict[str, Any]]:
        """List the engine's images; containerd's store fails to while another run removes one."""
        found: list[list[dict[str, Any]]] = []

        def is_listed() -> bool:
            with suppress(ApiError):
                found.append(self.world.engine.api.get("/images/json"))
            return bool(found)

        self.world.daemon.until(is_listed, "the engine lists its images")
        return found[0]

    def check_volumes(self) -> None:
        """Data are where they were, and of all volumes that were made for a container no other's are left."""
        path = f"/containers/{self.name}/archive"
        self.world.engine.api.request("GET", path, query={"path": MARKER})  # an error where it is not there
        before = {mount["Name"] for mount in self.before["Mounts"]}
        mounted = {mount["Name"] for mount in self.inspect()["Mounts"]}
        there = {volume["Name"] for volume in self.world.engine.api.get("/volumes")["Volumes"]}
        assert there & (self.volumes | mounted) == mounted
        assert before == mounted if self.scenario.is_rolled_back else before < mounted

    def check_hint(self) -> None:
        """A further hint finds nothing to do, after a rollback because the digest is rejected."""
        calls = list(self.proxy.calls)
        delivery = self.hint()
        daemon = self.world.daemon

        def told() -> list[dict[str, Any]]:
            return [line for line in daemon.lines() if is_last_word(line) and delivery in line.get("delivery_ids", ())]

        def is_last_word(line: dict[str, Any]) -> bool:
            return line["event"] in {"target.kept", "target.held"}

        daemon.until(told, f"what came of delivery {delivery} is told")
        assert told()[0]["reason"].startswith(self.scenario.answer.format(digest=self.digest))
        assert self.proxy.calls == calls


@dataclass
class Sweep:
    """Many runs of one scenario.

    Attributes:
        calls: the changing calls of the undisturbed run, in order.
    """

    scenario: Scenario
    engine: Engine
    registry: Registry
    folder: Path
    calls: list[str] = field(default_factory=list)

    def run_undisturbed(self) -> None:
        """Update without a fault, and learn which calls there are."""
        with self._run("undisturbed") as run:
            run.update()
            run.await_rest()
            run.check()
            self.calls = run.calls()

    def run_killed(self, point: tuple[int, Sequence[Fault]]) -> str | None:
        """Update with a kill or several, and say what is wrong afterwards."""
        number, faults = point
        with self._run(f"{number}-{'-'.join(faults)}") as run:
            try:
                run.kill_at(number, faults)
                run.await_rest()
                run.check()
            except (AssertionError, OSError, PartError) as error:
                where = f"{', '.join(faults)} {self.calls[number - 1]!r} ({number})"
                return f"killed {where}, then {run.calls()[number:]}: {type(error).__name__}: {error}"
        return None

    @contextmanager
    def _run(self, name: str) -> Iterator[Run]:
        run = Run.make(self.scenario, self.engine, self.registry, self.folder / name)
        try:
            yield run
        finally:
            run.end()


# How often a daemon is killed in a run: at the call where the run begins to differ, and at the first ones after it.
ONCE = [(Fault.CALL_LOST,), (Fault.ANSWER_LOST,)]
CUT = [(Fault.CALL_CUT,)]
TWICE = [(Fault.CALL_LOST, Fault.ANSWER_LOST), (Fault.ANSWER_LOST, Fault.CALL_CUT), (Fault.CALL_CUT, Fault.CALL_LOST)]
ENGINES_AND_FAULTS = [
    pytest.param(NEW.version, ONCE, id=NEW.version),
    pytest.param(NEW.version, [*CUT, *TWICE], id=f"{NEW.version}-more", marks=pytest.mark.sweep),
    pytest.param(OLD.version, [*ONCE, *CUT, *TWICE], id=OLD.version, marks=pytest.mark.sweep),
    pytest.param(STORE_VERSION, [*ONCE, *CUT, *TWICE], id=STORE_VERSION, marks=pytest.mark.sweep),
]


@pytest.fixture
def engine_of(testbed: Parts) -> Iterator[Callable[[str], Engine]]:
    """Give an engine of a kind, and wipe it afterwards."""
    used: list[Engine] = []

    def give(kind: str) -> Engine:
        used.append(testbed.engine(kind))
        return used[-1]

    yield give
    for one in used:
        one.wipe()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind, faults", ENGINES_AND_FAULTS)
def test_a_kill_around_any_engine_call_changes_nothing_of_the_end(
    kind: str,
    faults: Sequence[Sequence[Fault]],
    name: str,
    engine_of: Callable[[str], Engine],
    registry: Callable[..., Registry],
    tmp_path: Path,
) -> None:
    """Killed before, in the middle of or after any call that changes the engine, the end is as if it had not been."""
    sweep = Sweep(SCENARIOS[name], engine_of(kind), registry(), tmp_path)
    sweep.run_undisturbed()
    points = list(product(range(1, len(sweep.calls) + 1), faults))
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        wrong = [found for found in pool.map(sweep.run_killed, points) if found]
    assert not wrong, "\n\n".join(wrong)
    assert sweep.engine.api.get("/volumes")["Volumes"] in (None, [])
