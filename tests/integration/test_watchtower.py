"""A stack that is labelled for Watchtower, and a Sidecar with its variables in its place: nothing else is changed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemon import Daemon
from tests.integration.stack import version_of
from tests.integration.world import QUICK, free_port
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.images import Behaviour
from tests.testbed.registry import Notification, Registry

LABEL = "com.centurylinklabs.watchtower"
TOKEN = "mytoken"
VARIABLES = {
    "SIDECAR_WATCHTOWER_COMPAT": "true",
    "WATCHTOWER_CLEANUP": "true",
    "WATCHTOWER_HTTP_API_UPDATE": "true",
    "WATCHTOWER_HTTP_API_METRICS": "true",
    "WATCHTOWER_HTTP_API_TOKEN": TOKEN,
    "WATCHTOWER_DISABLE_CONTAINERS": "shop-spared-1",
    "WATCHTOWER_NOTIFICATION_URL": "discord://token@channel",
    "WATCHTOWER_TIMEOUT": "30s",
}
# As somebody wrote them for Watchtower, years ago.
SERVICES: dict[str, dict[str, str]] = {
    "plain": {
        f"{LABEL}.lifecycle.pre-update": "echo $SIDECAR_HOOK >> /shared/log; [ -e /shared/go ] || exit 75",
        f"{LABEL}.lifecycle.post-update": "echo $SIDECAR_HOOK in $VERSION >> /shared/log",
        f"{LABEL}.lifecycle.post-update-timeout": "0",
    },
    "watched": {f"{LABEL}.monitor-only": "true"},
    "left": {f"{LABEL}.enable": "false"},
    "spared": {f"{LABEL}.enable": "true"},
    "needing": {f"{LABEL}.enable": "true", f"{LABEL}.depends-on": "shop-plain-1"},
    "updater": {LABEL: "true"},
}


class Shop:
    """The stack."""

    def __init__(self, engine: Engine, registry: Registry, daemon: Daemon) -> None:
        self.engine, self.registry, self.daemon = engine, registry, daemon

    def up(self) -> None:
        """Push version 1 of every service and bring the stack up."""
        services: dict[str, dict[str, Any]] = {}
        for name, labels in SERVICES.items():
            self.push(name, "1")
            written = {key: value.replace("$", "$$") for key, value in labels.items()}
            services[name] = {"image": self.ref(name), "labels": written, "stop_grace_period": "1s"}
        services["plain"]["volumes"] = ["shared:/shared"]
        file = {"name": "shop", "services": services, "volumes": {"shared": {}}}
        (self.daemon.folder / "compose.yaml").write_text(json.dumps(file))
        self.compose("up", "--detach")

    def compose(self, *arguments: str) -> str:
        return self.engine.compose("--progress", "plain", *arguments, cwd=self.daemon.folder)

    def ref(self, service: str) -> str:
        return self.registry.reference(f"shop/{service}:1")

    def push(self, service: str, version: str, behaviour: Behaviour = Behaviour.HEALTHY) -> str:
        image = images.web(f"{service}-{version}", behaviour, health=QUICK)
        return images.push(self.registry, image, f"shop/{service}:1")

    def inspects(self) -> dict[str, dict[str, Any]]:
        names = [f"shop-{name}-1" for name in SERVICES]
        found = json.loads(self.engine.docker("inspect", "--type=container", *names))
        return {each["Name"].removeprefix("/"): each for each in found}

    def versions(self) -> dict[str, str]:
        return {
            name.removeprefix("shop-").removesuffix("-1"): version_of(each).rpartition("-")[2]
            for name, each in self.inspects().items()
        }

    def curl(self, path: str, *options: str, token: str = TOKEN) -> tuple[int, str]:
        """Ask as a script does that was written for Watchtower; give status and body."""
        command = ["curl", "--silent", "--show-error", "--write-out", "\n%{http_code}", *options]
        header = ["--header", f"Authorization: Bearer {token}"]
        done = subprocess.run(
            [*command, *header, self.daemon.url + path], check=True, capture_output=True, text=True, timeout=90
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body


@pytest.fixture
def make(engine_26: Engine, registry: Callable[..., Registry], tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    """Bring the stack up and start a daemon beside it, with or without a registry that tells it of pushes."""
    daemon = Daemon(engine_26, tmp_path, port=free_port(), environ=VARIABLES)

    def start(*, is_told: bool, **environ: str) -> Shop:
        notifications = [Notification(url=daemon.hook)] if is_told else []
        shop = Shop(engine_26, registry(notifications=notifications), daemon)
        shop.up()
        daemon.start(**environ)
        for name in ("plain", "watched", "needing"):
            daemon.until_told("target.kept", target=f"docker:shop-{name}-1")
        return shop

    yield start
    daemon.kill()


def test_a_stack_is_taken_over_as_it_is(make: Callable[..., Shop]) -> None:
    """Who was managed is; who was left out is, with the words that left it out; what is not done is in the log."""
    shop = make(is_told=False)
    before = shop.inspects()
    status, body = shop.daemon.get("/api/v1/targets")
    assert status == 200
    targets = {each["id"]: each["verdict"] for each in body["targets"]}
    assert targets == dict.fromkeys(("docker:shop-needing-1", "docker:shop-plain-1", "docker:shop-watched-1"), "keep")
    reasons = {each["name"]: each["reason"] for each in body["unmanaged"]}
    assert reasons.keys() == {"shop-left-1", "shop-spared-1", "shop-updater-1"}
    assert reasons["shop-left-1"] == f"label {LABEL}.enable='false' leaves it out"
    assert reasons["shop-spared-1"] == "WATCHTOWER_DISABLE_CONTAINERS leaves it out"
    assert "it is a Watchtower" in reasons["shop-updater-1"]
    ignored = {line["setting"] for line in shop.daemon.lines("setting.ignored")}
    assert ignored == {"WATCHTOWER_HTTP_API_TOKEN", "WATCHTOWER_NOTIFICATION_URL", "WATCHTOWER_TIMEOUT"}
    assert TOKEN not in shop.daemon.log.read_text()
    assert {name: each["Id"] for name, each in shop.inspects().items()} == {
        name: each["Id"] for name, each in before.items()
    }


def test_a_push_updates_what_watchtower_would_have_updated(make: Callable[..., Shop]) -> None:
    """By the registry's webhook: in order of what depends on what; what is only watched is told of."""
    shop = make(is_told=True)
    for name in SERVICES:
        shop.push(name, "2")
    shop.daemon.until_told("rollout.succeeded", target="docker:shop-plain-1")
    shop.daemon.until_told("rollout.succeeded", target="docker:shop-needing-1")
    held = shop.daemon.until_told("target.held", target="docker:shop-watched-1")
    assert "is available" in held["reason"]
    assert shop.versions() == {
        "plain": "2",
        "needing": "2",
        "watched": "1",
        "left": "1",
        "spared": "1",
        "updater": "1",
    }
    labels = shop.inspects()["shop-needing-1"]["Config"]["Labels"]
    assert {key: labels[key] for key in labels if key.startswith(LABEL)} == SERVICES["needing"]
    assert not [key for key in labels if key.startswith("sidecar.")]
    ids = {name: each["Id"] for name, each in shop.inspects().items() if name in ("shop-plain-1", "shop-needing-1")}
    shop.compose("up", "--detach", "plain", "needing")
    assert {name: shop.inspects()[name]["Id"] for name in ids} == ids


@pytest.mark.sweep
def test_a_script_asks_for_updates_as_it_did(make: Callable[..., Shop]) -> None:
    """The answer comes when the update is over: what it says is what runs, and the metrics count it."""
    shop = make(is_told=False)
    for path in ("/v1/update", "/v1/metrics"):
        assert shop.curl(path, token="wrong")[0] == 401
    digest = shop.push("plain", "2")
    shop.push("watched", "2")
    status, body = shop.curl(f"/v1/update?image={shop.ref('plain').removesuffix(':1')},nobody/here")
    answer = json.loads(body)
    assert (status, answer["status"]) == (200, "completed")
    assert (answer["scanned"], answer["updated"], answer["failed"]) == (1, 1, 0)
    assert answer["unknown"] == ["nobody/here"]
    assert shop.versions()["plain"] == "2"
    line = shop.daemon.until_told("rollout.succeeded", digest=digest)
    assert line["delivery_ids"] == [answer["delivery"]]
    assert line["cause"] == "watchtower"

    shop.push("needing", "2", Behaviour.UNHEALTHY)
    status, body = shop.curl("/v1/update", "--request", "POST")
    answer = json.loads(body)
    assert status == 200
    outcomes = {name: each["outcome"] for name, each in answer["targets"].items()}
    assert outcomes == {
        "docker:shop-plain-1": "kept",
        "docker:shop-watched-1": "held",
        "docker:shop-needing-1": "failed",
    }
    assert shop.versions() == dict.fromkeys(SERVICES, "1") | {"plain": "2"}
    status, text = shop.curl("/v1/metrics")
    assert status == 200
    assert "\nwatchtower_containers_scanned 3\n" in text
    assert "\nwatchtower_containers_failed 1\n" in text


@pytest.mark.sweep
def test_hooks_are_run_as_watchtower_ran_them(make: Callable[..., Shop]) -> None:
    """Before the update in the old container, which may say that it is not the time; after it in the new one."""
    shop = make(is_told=False, WATCHTOWER_LIFECYCLE_HOOKS="true")
    shop.push("plain", "2")
    image = shop.ref("plain")
    status, body = shop.curl(f"/v1/update?image={image}")
    outcome = json.loads(body)["targets"]["docker:shop-plain-1"]
    assert status == 200
    assert "says that it is not the time (exit code 75)" in outcome["reason"]
    assert shop.versions()["plain"] == "1"
    assert shop.engine.docker("exec", "shop-plain-1", "cat", "/shared/log").split("\n")[0] == "pre-update"
    shop.engine.docker("exec", "shop-plain-1", "touch", "/shared/go")
    assert json.loads(shop.curl(f"/v1/update?image={image}")[1])["updated"] == 1
    assert shop.versions()["plain"] == "2"
    lines = shop.engine.docker("exec", "shop-plain-1", "cat", "/shared/log").splitlines()
    assert set(lines[:-1]) == {"pre-update"}
    assert lines[-1] == "post-update in plain-2"
