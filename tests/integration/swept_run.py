"""One run of a sweep: a container on version 1, a daemon that looks after it alone, and a proxy before the engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from sidecar.core.rollout import NEXT, Phase
from tests.integration.daemon import Daemon
from tests.integration.engine_proxy import EngineProxy, Fault
from tests.integration.scenarios import HOOKS, LABELS, Scenario
from tests.integration.world import World, free_port
from tests.testbed import images
from tests.testbed.api import Api, ApiError
from tests.testbed.engine import Engine
from tests.testbed.errors import PartError
from tests.testbed.registry import Registry

SETTINGS = {"SIDECAR_DEBOUNCE_SECONDS": "0.1"}
PATIENCE_SECONDS = 180.0
MARKER = "/data/marker"
ALIAS = "here"
LOOK_SECONDS = 0.2


class Watch:
    """Looks all the time whether somebody answers to a name on a network.

    Attributes:
        looks: how many there were.
        holes: what there was when nobody answered.
    """

    def __init__(self, api: Api, network: str) -> None:
        self.looks = 0
        self.holes: list[str] = []
        self._api = api
        self._network = network
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            with suppress(ApiError, OSError, HTTPException):  # gone while it was looked at
                self._look()

    def _look(self) -> None:
        """Look once; it counts only where nothing began or ended in the middle of it."""
        before = self._running()
        found = [self._api.get(f"/containers/{ident}/json") for ident in before]
        if before != self._running():
            return
        self.looks += 1
        if not any(self._answers(each) for each in found):
            self.holes.append(str([(each["Name"], each["State"]["Status"]) for each in found]))

    def _running(self) -> list[str]:
        listed = self._api.get("/containers/json", filters={"network": [self._network]})
        return sorted(each["Id"] for each in listed)

    def _answers(self, container: dict[str, Any]) -> bool:
        endpoint = container["NetworkSettings"]["Networks"].get(self._network) or {}
        return bool(container["State"]["Running"]) and ALIAS in (endpoint.get("Aliases") or [])


@dataclass
class Run:
    """One container on version 1, one daemon that looks after this one alone, and the proxy between it and the engine.

    Attributes:
        before: the inspect of the container before the update; peers_before: those of what goes with it.
        volumes: every anonymous volume that a container of this run was made with, as far as its creation was answered.
        watch: looks that the service is never down, where that is promised.
        is_disturbed: the chosen call was made. What removes itself may be quicker than Sidecar, so that one is spared.
        is_image_left: the engine refused to remove the image that failed, which is asked for again by the next update.
        is_after_outage: the engine was started anew. It may have removed containers made with ``--rm``, and nobody
            knows which of their volumes are left; one that has another's network is started only where that ran before.
    """

    scenario: Scenario
    world: World
    name: str
    proxy: EngineProxy
    before: dict[str, Any] = field(default_factory=dict)
    peers_before: dict[str, dict[str, Any]] = field(default_factory=dict)
    volumes: set[str] = field(default_factory=set)
    digest: str = ""
    watch: Watch | None = None
    is_disturbed: bool = False
    is_image_left: bool = False
    is_after_outage: bool = False

    @classmethod
    def make(
        cls, scenario: Scenario, engine: Engine, registry: Registry, folder: Path, *, by_compose: bool = False
    ) -> Run:
        """Make everything but the update; the containers as a Compose project, if so asked."""
        folder.mkdir()
        name = f"web-{folder.name}"
        proxy = EngineProxy(engine.socket, folder / "engine.sock")
        settings = {**SETTINGS, "SIDECAR_SCOPE": name, "SIDECAR_DOCKER_HOST": proxy.host}
        daemon = Daemon(engine, folder, port=free_port(), environ=settings)
        run = cls(scenario, World(engine, registry, daemon, tag=f"{name}:1"), name, proxy)
        proxy.on_created = run.note_volumes
        run.push_first()
        if by_compose:
            compose_up(run)
        else:
            run.start_container()
        run.note_before()
        return run

    @property
    def api(self) -> Api:
        """The engine, without the proxy."""
        return self.world.engine.api

    @property
    def network(self) -> str:
        """The network of its own, where it has one."""
        return f"net-{self.name}"

    @property
    def peers(self) -> tuple[str, ...]:
        """The names of what goes with it."""
        return (f"{self.name}-net", f"{self.name}-vol") if self.scenario.has_dependents else ()

    @property
    def peer_tag(self) -> str:
        """The image of what goes with it: its own, for a registry that is written to fails those that read."""
        return f"{self.name}-peer:1"

    # --- before -----------------------------------------------------------------------------------------------------

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the container."""
        return {**LABELS, **self.scenario.labels, "sidecar.scope": self.name}

    def push_first(self) -> None:
        """Push version 1, and the image of what goes with it."""
        self.world.push_image(
            "1", images.web(f"{self.name}-1", health=self.scenario.first_health, Volumes={"/data": {}})
        )
        if self.peers:
            images.push(self.world.registry, images.base(), self.peer_tag)

    def note_before(self) -> None:
        """Put something into its volume, and remember how everything was."""
        marker = images.packed({MARKER: "data"}).content
        self.api.request("PUT", f"/containers/{self.name}/archive", query={"path": "/"}, body=marker)
        self.before = self.inspect()
        self.peers_before = {name: self.inspect(name) for name in self.peers}
        self.note_volumes(self.name)

    def start_container(self) -> None:
        """Run the container on version 1, and what goes with it."""
        self._pull(self.world.ref)
        host = {"RestartPolicy": self.scenario.restart, "AutoRemove": self.scenario.removes_itself}
        body: dict[str, Any] = {"Image": self.world.ref, "Labels": self.labels, "HostConfig": host}
        if self.scenario.is_start_first:
            self.api.post("/networks/create", {"Name": self.network, "CheckDuplicate": True})
            host["NetworkMode"] = self.network
            body["NetworkingConfig"] = {"EndpointsConfig": {self.network: {"Aliases": [ALIAS]}}}
        self._start(self.name, body)
        self._start_peers()

    def _start_peers(self) -> None:
        if not self.peers:
            return
        self._pull(self.world.registry.reference(self.peer_tag))
        shares = {f"{self.name}-net": {"NetworkMode": f"container:{self.name}"}}
        shares[f"{self.name}-vol"] = {"VolumesFrom": [self.name]}
        for name in self.peers:
            host = {"RestartPolicy": {"Name": "always"}, **shares[name]}
            # Nothing in it listens to a signal that asks.
            body = {
                "Image": self.world.registry.reference(self.peer_tag),
                "Cmd": ["sleep", "9999"],
                "StopSignal": "SIGKILL",
            }
            self._start(name, {**body, "HostConfig": host})

    def _pull(self, reference: str) -> None:
        repository, _, tag = reference.rpartition(":")
        self.api.post("/images/create", fromImage=repository, tag=tag)

    def _start(self, name: str, body: dict[str, Any]) -> None:
        ident = self.api.post("/containers/create", body, name=name)["Id"]
        self.api.post(f"/containers/{ident}/start")
        self.note_volumes(ident)

    def end(self) -> None:
        """Leave nothing that runs."""
        if self.watch is not None:
            self.watch.end()
        self.world.daemon.kill()
        self.proxy.disarm()
        self.proxy.close()
        for container in self.containers():
            with suppress(ApiError):  # one that removes itself may be on its way
                self.api.delete(f"/containers/{container['Id']}", force=True, v=True)
        known = {mount["Name"] for mount in self.before.get("Mounts", ())}
        for name in known | (self.volumes if self.is_after_outage and self.scenario.removes_itself else set()):
            self.api.delete(f"/volumes/{name}", force=True)
        if self.network in self.before["NetworkSettings"]["Networks"]:
            with suppress(ApiError):  # it was taken away with the container
                self.api.delete(f"/networks/{self.network}")

    def inspect(self, name: str = "") -> dict[str, Any]:
        """Look at a container; at the one in its place unless another is named."""
        found: dict[str, Any] = self.api.get(f"/containers/{name or self.name}/json")
        return found

    def containers(self) -> list[dict[str, Any]]:
        """List what bears the container's name, or one that was made from it, and what goes with it."""
        family = {f"/{name}" for name in (self.name, *self.peers)}
        found = self.api.get("/containers/json", all=True)
        project = {"com.docker.compose.project": self.name}.items()
        return [each for each in found if own_part(each["Names"]) in family or project <= each["Labels"].items()]

    def note_volumes(self, ident: str) -> None:
        """Remember the volumes of a container that has just been created."""
        with suppress(ApiError):  # it is gone already
            self.volumes |= {mount["Name"] for mount in self.inspect(ident)["Mounts"] if mount.get("Name")}

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

    def watch_over(self) -> None:
        """Look from now on whether the service is up, where it may never be down."""
        if self.scenario.is_start_first:
            self.watch = Watch(self.api, self.network)

    def kill_at(self, number: int, faults: Sequence[Fault]) -> None:
        """Kill the daemon at the n-th changing call of the update, start it, kill it at its next one, and so on."""
        daemon, proxy = self.world.daemon, self.proxy
        proxy.arm(number, faults[0], daemon.kill)
        self.update()
        self._await_trap(number)
        daemon.kill()  # what removes itself may have been quicker, and the call was not made
        for fault in faults[1:]:
            proxy.arm(len(proxy.calls) + 1, fault, daemon.kill)
            daemon.start(wait=False)
            daemon.until(self.is_killed_or_done, f"{self.name} is killed again", seconds=PATIENCE_SECONDS)
            daemon.kill()  # it may have been the last call
        proxy.disarm()
        daemon.start()

    def fail_at(self, number: int, fault: Fault) -> None:
        """Let the n-th changing call of the update go wrong; the daemon goes on by itself."""
        self.proxy.arm(number, fault)
        self.update()
        self._await_trap(number)
        self.is_image_left = fault is Fault.REFUSED and self.proxy.calls[number - 1 : number] == ["DELETE image"]
        self.proxy.disarm()

    def hold_at(self, number: int, fault: Fault) -> None:
        """Bring the update to its n-th changing call, which goes wrong when it is released."""
        self.proxy.hold(number, fault)
        self.update()
        self._await_trap(number)

    def _await_trap(self, number: int) -> None:
        what = f"{self.name} makes {number} calls, or is through without"
        self.world.daemon.until(self.is_killed_or_done, what, seconds=PATIENCE_SECONDS)
        self.is_disturbed = self.proxy.sprung.is_set()

    def is_killed_or_done(self) -> bool:
        """Say whether nothing more will come of the daemon as it is now."""
        return self.proxy.sprung.is_set() or self.is_at_rest()

    def calls(self) -> list[str]:
        """Give the changing calls so far, in words that are the same for every run."""
        return [call.replace(self.name, "web") for call in self.proxy.calls]

    # --- the end ----------------------------------------------------------------------------------------------------

    def target(self) -> dict[str, Any] | None:
        """Give what the daemon says of the container; None while it cannot."""
        try:
            status, body = self.world.daemon.get("/api/v1/targets")
        except (OSError, HTTPException):  # not ready yet, or killed while it answered
            return None
        found = body["targets"] if status == 200 else ()  # the engine may be away
        return found[0] if found else None

    def is_at_rest(self, *, also: tuple[str, ...] = ()) -> bool:
        """Say whether no rollout is open and the last word on the target is what it has to be."""
        words = tuple(word.format(digest=self.digest) for word in (*self.scenario.outcomes, *also))
        target = self.target()
        is_judged = target is not None and target["available"] == self.digest and target["reason"].startswith(words)
        return target is not None and is_judged and target["phase"] == ""

    def is_quiet(self) -> bool:
        """Say whether every rollout that was begun has ended, of a container that is gone too; by what was told."""
        ends = [f"rollout.{phase}" for phase in Phase if phase not in NEXT]
        lines = self.world.daemon.lines()
        begun = {line["rollout_id"] for line in lines if line["event"] == "rollout.started"}
        return begun <= {line["rollout_id"] for line in lines if line["event"] in ends}

    def is_healthy(self) -> bool:
        """Say whether the container in its place is."""
        with suppress(PartError, OSError):
            return bool(self.inspect()["State"].get("Health", {}).get("Status") == "healthy")
        return False

    def await_rest(self, *, also: tuple[str, ...] = ()) -> None:
        """Wait until nothing more will happen by itself."""
        self.world.daemon.until(lambda: self.is_at_rest(also=also), f"{self.name} is at rest", seconds=PATIENCE_SECONDS)

    def check(self) -> None:
        """Hold what is promised at rest, whatever happened on the way there."""
        self.check_container()
        self.check_peers()
        self.check_images()
        self.check_volumes()
        self.check_hooks()
        self.check_hint()
        assert self.world.daemon.lines("pass.crashed") == []
        if self.watch is not None:
            self.watch.end()
            assert self.watch.looks > 0
            assert self.watch.holes == []

    def check_container(self) -> None:
        """One container is left, under its own name: the right one, healthy, restarted as before."""
        names = sorted(name for each in self.containers() for name in each["Names"] if name.count("/") == 1)
        assert names == sorted(f"/{name}" for name in (self.name, *self.peers))
        after = self.inspect()
        is_same = self.scenario.is_rolled_back and not self.scenario.removes_itself
        assert (after["Id"] == self.before["Id"]) is is_same
        assert f"VERSION={self.name}-{1 if self.scenario.is_rolled_back else 2}" in after["Config"]["Env"]
        assert after["Config"]["Image"] == self.world.ref
        assert after["HostConfig"]["RestartPolicy"] == self.scenario.restart
        assert after["HostConfig"]["AutoRemove"] is self.scenario.removes_itself
        assert after["State"]["Status"] == "running"
        assert after["State"]["Health"]["Status"] == "healthy"
        networks = after["NetworkSettings"]["Networks"]
        assert networks.keys() == self.before["NetworkSettings"]["Networks"].keys()
        if self.scenario.is_start_first:
            assert ALIAS in networks[self.network]["Aliases"]

    def check_peers(self) -> None:
        """What goes with it runs and has what it had, of the one in place; made again only where that is another."""
        inside = self.inspect()
        for name in self.peers:
            after, before = self.inspect(name), self.peers_before[name]
            is_left_down = self.is_after_outage and name.endswith("-net")
            assert after["State"]["Status"] == "running" or is_left_down, name
            assert (after["Id"] == before["Id"]) is self.scenario.is_rolled_back, name
            if name.endswith("-net"):
                assert after["HostConfig"]["NetworkMode"] == f"container:{inside['Id']}"
            else:
                assert {mount["Name"] for mount in after["Mounts"]} >= {mount["Name"] for mount in before["Mounts"]}

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
        assert (self.digest in digests) is (not self.scenario.is_rolled_back or self.is_image_left)

    def _images(self) -> list[dict[str, Any]]:
        """List the engine's images; containerd's store fails to while another run removes one."""
        found: list[list[dict[str, Any]]] = []

        def is_listed() -> bool:
            with suppress(ApiError):
                found.append(self.api.get("/images/json"))
            return bool(found)

        self.world.daemon.until(is_listed, "the engine lists its images")
        return found[0]

    def check_volumes(self) -> None:
        """Data are where they were, and of all volumes that were made for a container no other's are left."""
        path = f"/containers/{self.name}/archive"
        self.api.request("GET", path, query={"path": MARKER})  # an error where it is not there
        before = {mount["Name"] for mount in self.before["Mounts"]}
        mounted = {mount["Name"] for mount in self.inspect()["Mounts"]}
        there = {volume["Name"] for volume in self.api.get("/volumes")["Volumes"]}
        assert there & (self.volumes | mounted) == mounted
        assert before == mounted if self.scenario.is_rolled_back else before < mounted

    def ran(self) -> list[str]:
        """Give what the hooks have written, in order."""
        archive = self.api.request("GET", f"/containers/{self.name}/archive", query={"path": "/data/ran"})
        return [word for word in str(archive).replace("\0", "\n").split("\n") if word in ("pre", "post")]

    def check_hooks(self) -> None:
        """Each is run, the first before the second; once more only where it was not known that it had been."""
        if not HOOKS.items() <= self.scenario.labels.items():
            return
        ran = self.ran()
        assert ran == sorted(ran, key=("pre", "post").index)
        assert set(ran) == {"pre", "post"}

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


def own_part(names: Sequence[str]) -> str:
    """Give a container's own name without what Sidecar adds to it; links of others are names, too."""
    return next((name.partition(".")[0] for name in names if name.count("/") == 1), "")


def compose_up(run: Run) -> None:
    """Make the containers of a run as a Compose project, each under the name that it would have without."""
    own = {"restart": run.scenario.restart["Name"], "networks": {"default": {"aliases": [ALIAS]}}}
    services: dict[str, Any] = {
        "web": {"image": run.world.ref, "container_name": run.name, "labels": run.labels, **own},
    }
    sharing: list[dict[str, Any]] = [{"network_mode": "service:web"}, {"volumes_from": ["web"]}]
    for name, shares in zip(run.peers, sharing, strict=bool(run.peers)):
        idle = {"command": ["sleep", "9999"], "stop_signal": "SIGKILL", "restart": "always"}
        image = run.world.registry.reference(run.peer_tag)
        services[name.rpartition("-")[2]] = {"image": image, "container_name": name, **idle, **shares}
    content = {"name": run.name, "services": services, "networks": {"default": {"name": run.network}}}
    (run.world.daemon.folder / "compose.yaml").write_text(json.dumps(content))
    compose(run, "up", "--detach")


def compose(run: Run, *arguments: str) -> None:
    """Run Compose on the project of a run."""
    run.world.engine.compose("--progress", "plain", *arguments, cwd=run.world.daemon.folder)
