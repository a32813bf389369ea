"""The doctor: what it finds, and that it says what to do about it."""

import errno
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli import doctor as doctor_module
from sidecar.cli import host, main
from sidecar.cli.daemon import Daemon
from sidecar.cli.doctor import Parts, examine, real_parts
from sidecar.cli.finding import Finding, Status
from sidecar.cli.host import Place, examine_socket, examine_state
from sidecar.control_port import WrongCredentials
from sidecar.core.decision import Resolved
from sidecar.core.image import Digest, ImageRef
from sidecar.credentials import Credential
from sidecar.errors import Refused, SidecarError, Unreachable
from sidecar.ports import Delivery
from sidecar.settings_model import Settings, load_settings
from tests.cli.served_daemon import served
from tests.web.fake_control import DELIVERY

MANAGED = {"Id": "1", "Names": ["/web"], "Image": "r.example/app:1", "Labels": {"sidecar.enable": "true"}}
MISLABELLED = {"Id": "2", "Names": ["/api"], "Image": "me/api", "Labels": {"sidecar.enable": "true", "sidecar.x": "1"}}
OTHER = {"Id": "3", "Names": ["/db"], "Image": "postgres", "Labels": {}}


class FakeEngine:
    """An engine with a clock and containers."""

    api_version = (1, 45)
    is_podman = False

    def __init__(self) -> None:
        self.skew_seconds = 0.0
        self.time: str | None = None
        self.containers: list[dict[str, Any]] = [MANAGED, OTHER]
        self.images: dict[str, dict[str, Any]] = {}
        self.inspects: dict[str, dict[str, Any]] = {}
        self.fails: SidecarError | None = None
        self.is_closed = False

    async def connect(self, _url: str) -> "FakeEngine":
        if self.fails is not None:
            raise self.fails
        return self

    async def info(self) -> dict[str, Any]:
        now = datetime.fromtimestamp(time.time() + self.skew_seconds, UTC)
        written = now.strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"
        return {"OperatingSystem": "Debian", "ServerVersion": "26.1", "SystemTime": self.time or written}

    async def list_containers(self) -> list[dict[str, Any]]:
        return self.containers

    async def inspect_container(self, ident: str) -> tuple[dict[str, Any], float] | None:
        return (self.inspects[ident], 0.0) if ident in self.inspects else None

    async def inspect_image(self, ident: str) -> dict[str, Any] | None:
        return self.images.get(ident)

    async def close(self) -> None:
        self.is_closed = True


class FakeRegistry:
    """Registries of which some do not answer."""

    def __init__(self) -> None:
        self.fails: SidecarError | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator["FakeRegistry"]:
        yield self

    async def resolve(self, _ref: ImageRef) -> Resolved:
        if self.fails is not None:
            raise self.fails
        return Resolved.of(Digest(f"sha256:{'1' * 64}"))


async def no_credential(_host: str) -> Credential | None:
    return None


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"SIDECAR_STATE_DIR": str(tmp_path / "state"), "SIDECAR_DOCKER_HOST": "tcp://x:1"}, tmp_path)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def parts(settings: Settings, engine: FakeEngine, registry: FakeRegistry, tmp_path: Path) -> Parts:
    return Parts(
        connect=engine.connect,
        registry=registry.open,
        find_credential=no_credential,
        daemon=Daemon.in_folder(settings.state_dir),
        place=Place(mountinfo=tmp_path / "none", container_mark=tmp_path / "none"),
    )


async def found(settings: Settings, parts: Parts, part: str) -> list[Finding]:
    return [finding async for finding in examine(settings, parts) if finding.part == part]


async def test_a_place_where_all_is_well(settings: Settings, parts: Parts, engine: FakeEngine):
    """Everything is named once, with what is there; only the daemon is missing."""
    findings = [finding async for finding in examine(settings, parts)]
    assert [(finding.part, finding.status) for finding in findings if finding.status is not Status.OK] == [
        ("daemon", Status.WARNING)
    ]
    says = {finding.part: finding.says for finding in findings}
    assert says["engine"] == "Debian, Docker 26.1, API 1.45"
    assert says["targets"] == "of 2 containers 1 is managed: web"
    assert says["registry"] == "r.example answers (r.example/app:1)"
    assert engine.is_closed


async def test_podman_is_called_by_its_name(settings: Settings, parts: Parts, engine: FakeEngine):
    """What its API cannot show is said, and what it built itself is held; its clock may be in any time zone."""
    engine.is_podman = True
    engine.api_version = (1, 41)
    engine.time = datetime.now(timezone(timedelta(hours=5, minutes=30))).isoformat()
    engine.containers = [MANAGED | {"Image": "localhost/app:1"}]
    named, hidden = await found(settings, parts, "engine")
    assert named.says == "Debian, Podman 26.1, API 1.41"
    assert "sysctls" in hidden.says
    assert [finding.status for finding in await found(settings, parts, "clock")] == [Status.OK]
    held, _ = await found(settings, parts, "targets")
    assert "built on this machine" in held.advice


async def test_an_engine_that_does_not_answer_is_told(settings: Settings, parts: Parts, engine: FakeEngine):
    """The message of the engine is passed on, and the rest is examined all the same."""
    engine.fails = Unreachable("the engine does not answer")
    (finding,) = await found(settings, parts, "engine")
    assert (finding.status, finding.says) == (Status.FAILED, "the engine does not answer")
    assert finding.advice
    assert await found(settings, parts, "state")


async def test_an_engine_that_says_no_is_told(settings: Settings, parts: Parts, engine: FakeEngine):
    """A proxy before the socket may forget what Sidecar needs."""

    async def refuse() -> list[dict[str, Any]]:
        msg = "403 Forbidden"
        raise Refused(msg)

    engine.list_containers = refuse
    (finding,) = await found(settings, parts, "engine")
    assert "403" in finding.says
    assert "proxy" in finding.advice
    assert engine.is_closed


@pytest.mark.parametrize("skew, status", [(0, Status.OK), (-4, Status.OK), (90, Status.WARNING), (-90, Status.WARNING)])
async def test_a_clock_that_differs_is_told(
    settings: Settings, parts: Parts, engine: FakeEngine, skew: float, status: Status
):
    """Seconds matter to certificates and tokens."""
    engine.skew_seconds = skew
    (finding,) = await found(settings, parts, "clock")
    assert finding.status is status


async def test_a_time_that_is_none_is_told(settings: Settings, parts: Parts, engine: FakeEngine):
    """What is no engine may answer anything."""
    engine.time = "yesterday"
    (finding,) = await found(settings, parts, "clock")
    assert "yesterday" in finding.says


async def test_a_wrong_label_is_told(settings: Settings, parts: Parts, engine: FakeEngine):
    """A target that cannot be looked after says why."""
    engine.containers = [MISLABELLED]
    wrong, managed = await found(settings, parts, "targets")
    assert "label sidecar.x is not known" in wrong.advice
    assert managed.says == "of 1 containers 0 are managed; 1 is held: api"


async def test_what_is_managed_held_and_pinned_is_counted_apart(settings: Settings, parts: Parts, engine: FakeEngine):
    """Of what is labelled only some is updated; an image that was built here is nobody's failure, nor asked for."""
    pinned = MANAGED | {"Id": "4", "Names": ["/db"], "Image": f"postgres@sha256:{'1' * 64}"}
    both = MISLABELLED | {"Id": "5", "Names": ["/odd"], "Image": pinned["Image"]}
    local = MANAGED | {"Id": "6", "Names": ["/own"], "Image": "me/own:1"}
    by_id = MANAGED | {"Id": "7", "Names": ["/moved"], "Image": f"sha256:{'2' * 64}"}
    engine.containers = [MANAGED, MISLABELLED, OTHER, pinned, both, local, by_id]
    engine.inspects = {"7": {"Config": {"Image": "r.example/moved:1"}}}
    engine.images = {"me/own:1": {"RepoDigests": []}, "r.example/app:1": {"RepoDigests": ["r.example/app@sha256:1"]}}
    *wrong, counted = await found(settings, parts, "targets")
    assert [finding.says for finding in wrong] == [
        "docker:api cannot be looked after",
        "docker:odd cannot be looked after",
    ]
    assert counted.status is Status.OK
    assert counted.says == (
        "of 7 containers 2 are managed: web, moved; 2 are held: api, odd; "
        "1 is pinned to a digest: db; 1 is built on this machine, never pushed or pulled: own"
    )
    assert [finding.says for finding in await found(settings, parts, "registry")] == [
        "r.example answers (r.example/app:1)"
    ]


async def test_nothing_managed_shows_the_label(settings: Settings, parts: Parts, engine: FakeEngine):
    """Whoever labelled nothing is shown how."""
    engine.containers = [OTHER]
    (finding,) = await found(settings, parts, "targets")
    assert finding.says == "none of 1 containers is managed"
    assert "sidecar.enable" in finding.advice
    engine.containers = []
    (finding,) = await found(settings, parts, "targets")
    assert finding.says == "there is no container yet"


async def test_many_targets_are_counted(settings: Settings, parts: Parts, engine: FakeEngine):
    """A line stays a line."""
    engine.containers = [MANAGED | {"Id": str(n), "Names": [f"/web-{n}"]} for n in range(12)]
    (finding,) = await found(settings, parts, "targets")
    assert finding.says.endswith("web-9 and 2 more")


async def test_a_registry_that_does_not_answer_is_told(settings: Settings, parts: Parts, registry: FakeRegistry):
    """Each registry that a managed container comes from is asked."""
    registry.fails = Refused("resolving r.example/app:1: 401, no credentials")
    (finding,) = await found(settings, parts, "registry")
    assert (finding.status, finding.says) == (Status.FAILED, "resolving r.example/app:1: 401, no credentials")
    assert "network_mode" not in finding.advice


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "localhost:5000", "[::1]:5000"])
async def test_a_registry_of_this_host_is_told_to_be_out_of_a_containers_reach(
    settings: Settings, parts: Parts, engine: FakeEngine, registry: FakeRegistry, host: str
):
    """The engine reaches what the host calls 127.0.0.1; in a container that is the container."""
    engine.containers = [MANAGED | {"Image": f"{host}/app:1"}]
    registry.fails = Refused(f"resolving {host}/app:1: nobody answers")
    (finding,) = await found(settings, parts, "registry")
    assert "network_mode: host" in finding.advice


async def test_credentials_are_told_without_the_secret(settings: Settings, parts: Parts):
    """For each host it is said as whom it is asked, and never with what."""

    async def find(registry: str) -> Credential | None:
        if registry == "r.example":
            return Credential(registry=registry, username="me", password="hunter2")
        return Credential(registry=registry, identity_token="hunter2")

    async def refuse(_registry: str) -> Credential | None:
        msg = "it is not JSON"
        raise Refused(msg)

    seen = Parts(**{name: getattr(parts, name) for name in Parts.__slots__} | {"find_credential": find})
    assert [finding.says for finding in await found(settings, seen, "credentials")] == [
        "docker.io: by an identity token",
        "r.example: as me",
    ]
    broken = Parts(**{name: getattr(parts, name) for name in Parts.__slots__} | {"find_credential": refuse})
    assert {finding.status for finding in await found(settings, broken, "credentials")} == {Status.FAILED}


async def test_a_daemon_tells_what_it_turned_away(settings: Settings, parts: Parts):
    """What senders were refused is said with the reason, so that a wrong allow-list is noticed."""
    settings.state_dir.mkdir()
    with served(settings.state_dir) as served_daemon:
        served_daemon.deliveries = [replace(DELIVERY, received_at=time.time())]
        served_daemon.wrong = []
        (daemon,) = await found(settings, parts, "daemon")
        (delivery,) = await found(settings, parts, "deliveries")
    assert daemon.says == "it runs; of the last 1 deliveries it accepted 0"
    assert delivery.says == "1 from dockerhub refused in the last day: pusher 'mallory' is not allowed"


def delivered(hours_ago: float, fate: str = "accepted", **changed: Any) -> Delivery:
    """Make a delivery like the refused one of the fake."""
    reason = {"accepted": "", "ignored": "no event is a push of a tag", "refused": "is not allowed"}[fate]
    given = {"received_at": time.time() - hours_ago * 3600, "fate": fate, "reason": reason} | changed
    return replace(DELIVERY, **given)


@pytest.mark.parametrize(
    "deliveries, said",
    [
        ([delivered(25, "refused"), delivered(26, "ignored")], []),
        ([delivered(23, "ignored")], ["ignored"]),
        ([delivered(1), delivered(2, "refused")], []),
        ([delivered(1, "refused"), delivered(2)], ["refused"]),
        ([delivered(1, source="generic"), delivered(2, "refused")], ["refused"]),
        ([delivered(1, pusher="alice"), delivered(2, "refused")], ["refused"]),
        ([delivered(1, pusher="alice"), delivered(2, "refused", pusher="")], []),
        ([delivered(1, hints=()), delivered(2, "refused")], ["refused"]),
        ([delivered(1), delivered(2, "refused", pusher="", hints=())], []),
        ([delivered(1), delivered(2, "ignored")], ["ignored"]),
    ],
)
async def test_a_refusal_is_said_while_it_matters(
    settings: Settings, parts: Parts, deliveries: list[Delivery], said: list[str]
):
    """Not when it is older than a day, nor once the like of it was accepted: somebody has put that right."""
    settings.state_dir.mkdir()
    with served(settings.state_dir) as daemon:
        daemon.deliveries, daemon.wrong = deliveries, []
        findings = await found(settings, parts, "deliveries")
    assert [re.search("ignored|refused", finding.says)[0] for finding in findings] == said


@pytest.mark.parametrize("count, words", [(1, "1 request to generic"), (3, "3 requests to generic")])
async def test_wrong_credentials_become_visible(settings: Settings, parts: Parts, count: int, words: str):
    """Nothing is kept of such a request; how many there were, to which source and when the last came is said."""
    settings.state_dir.mkdir()
    with served(settings.state_dir) as daemon:
        daemon.deliveries = []
        daemon.wrong = [WrongCredentials(source="generic", count=count, last_at=1700000002.0)]
        (finding,) = await found(settings, parts, "deliveries")
    assert finding.status is Status.WARNING
    assert finding.says == (
        f"{words} had a wrong credential since the daemon started, the last at 2023-11-14T22:13:22.000Z"
    )
    assert "`sidecar url generic`" in finding.advice


MOUNTS = """\
1 0 0:1 / / rw - {root} none rw
2 1 0:2 / /run rw,nosuid shared:5 - tmpfs tmpfs rw
3 1 8:1 /v {folder} rw - ext4 /dev/sda1 rw
4 1 8:1 /v /with\\040space rw - ext4 /dev/sda1 rw
"""


@pytest.mark.parametrize(
    "root, mounted, is_container, expected",
    [
        ("ext4", "/elsewhere", False, None),
        ("ext4", "/elsewhere", True, "is inside the container"),
        ("overlay", "/elsewhere", False, "is inside the container"),
        ("overlay", "here", True, None),
        ("tmpfs", "/elsewhere", False, "is in memory (tmpfs)"),
    ],
)
def test_a_state_folder_that_is_lost_is_told(
    tmp_path: Path, root: str, mounted: str, is_container: bool, expected: str | None
):
    """A folder inside the container goes with it; on a volume, or on a host, it stays."""
    place = Place(mountinfo=tmp_path / "mountinfo", container_mark=tmp_path / "mark")
    place.mountinfo.write_text(MOUNTS.format(root=root, folder=tmp_path if mounted == "here" else mounted))
    if is_container:
        place.container_mark.touch()
    first, *rest = examine_state(tmp_path / "state", place)
    assert first.status is Status.OK
    assert [expected in finding.says for finding in rest if expected] == ([True] if expected else [])
    assert not rest or rest[0].advice == f'mount a volume there:  volumes: ["sidecar-data:{tmp_path}/state"]'


@pytest.mark.parametrize(
    "error, advice",
    [
        (PermissionError(errno.EACCES, "Permission denied"), "chown"),
        (OSError(errno.EROFS, "Read-only file system"), "volumes:"),
    ],
)
def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, advice: str
):
    """The user who has to be let in is named; where nobody may write, a volume."""

    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr(host.tempfile, "TemporaryFile", refuse)
    (finding,) = examine_state(tmp_path, Place(mountinfo=tmp_path / "none"))
    assert finding.status is Status.FAILED
    assert advice in finding.advice


def test_a_socket_is_examined_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A missing socket, a folder in its place and a closed one each have their own line of advice."""
    path = tmp_path / "docker.sock"
    missing = examine_socket(f"unix://{path}")
    assert missing is not None
    assert "volumes:" in missing.advice
    path.mkdir()
    folder = examine_socket(f"unix://{path}")
    assert folder is not None
    assert "is no socket" in folder.says
    path.rmdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o660)
        assert examine_socket(f"unix://{path}") is None
        monkeypatch.setattr(host.os, "access", lambda *_: False)
        closed = examine_socket(f"unix://{path}")
        assert closed is not None
        assert closed.advice == f'group_add: ["{path.stat().st_gid}"]'
        path.chmod(0o600)
        private = examine_socket(f"unix://{path}")
        assert private is not None
        assert private.advice == f'user: "{path.stat().st_uid}"'
    assert examine_socket("tcp://x:1") is None


def test_a_socket_in_a_closed_folder_is_told(monkeypatch: pytest.MonkeyPatch):
    """A folder that cannot be entered hides what is in it."""

    def refuse(_self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    finding = examine_socket("unix:///run/docker.sock")
    assert finding is not None
    assert "cannot be seen: Permission denied" in finding.says


def test_the_worst_is_the_status(
    parts: Parts,
    engine: FakeEngine,
    registry: FakeRegistry,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    """All well is 0, any failure 1, an engine out of reach 3; a program gets the findings as JSON."""
    monkeypatch.setattr(doctor_module, "real_parts", lambda _: parts)
    environ = {"SIDECAR_STATE_DIR": str(tmp_path / "state"), "SIDECAR_DOCKER_HOST": "tcp://x:1"}
    assert main(["doctor"], environ, tmp_path) == 0
    assert "ok       engine       Debian" in capsys.readouterr().out
    registry.fails = Refused("no")
    assert main(["doctor", "--json"], environ, tmp_path) == 1
    assert {"status": "failed", "part": "registry"}.items() <= json.loads(capsys.readouterr().out)[-2].items()
    engine.fails = Unreachable("gone")
    assert main(["doctor"], environ, tmp_path) == 3
    assert "-> see that it runs" in capsys.readouterr().out


async def test_the_real_parts_fit(tmp_path: Path):
    """Without fakes the same questions are asked, with the credentials that are set; nobody answers here."""
    environ = {
        "SIDECAR_STATE_DIR": str(tmp_path),
        "SIDECAR_DOCKER_HOST": f"unix://{tmp_path}/docker.sock",
        "SIDECAR_REGISTRY_USERNAME": "me",
        "SIDECAR_REGISTRY_PASSWORD": "hunter2",
    }
    settings = load_settings(environ, tmp_path)
    findings = [finding async for finding in examine(settings, real_parts(settings))]
    assert {finding.part for finding in findings if finding.status is Status.FAILED} == {"engine"}
    assert "docker.io: as me" in [finding.says for finding in findings]


# --- beside a Watchtower ----------------------------------------------------------------------------------------------

WATCHTOWER = {"Id": "9", "Names": ["/wt"], "Image": "wt:1", "Labels": {"com.centurylinklabs.watchtower": "true"}}


def theirs(name: str, **labels: str) -> dict[str, Any]:
    """Make the list entry of a container that is labelled for Watchtower."""
    prefixed = {f"com.centurylinklabs.watchtower.{key.replace('_', '-')}": value for key, value in labels.items()}
    return {"Id": name, "Names": [f"/{name}"], "Image": "r.example/app:1", "Labels": prefixed}


@pytest.mark.parametrize("state, is_told", [("running", True), ("restarting", True), ("exited", False)])
async def test_a_watchtower_that_runs_is_told(
    settings: Settings, parts: Parts, engine: FakeEngine, state: str, is_told: bool
):
    """Two updaters take each other's containers away, whether its labels count here or not."""
    engine.containers = [MANAGED, WATCHTOWER | {"State": state}]
    findings = await found(settings, parts, "watchtower")
    assert [finding.advice for finding in findings] == (["docker rm -f wt"] if is_told else [])


async def test_labels_that_do_not_count_are_told_once(settings: Settings, parts: Parts, engine: FakeEngine):
    """With the switch that lets them count."""
    engine.containers = [MANAGED, theirs("a", enable="true"), theirs("b", scope="x")]
    (finding,) = await found(settings, parts, "watchtower")
    assert finding.says == "labels of Watchtower's do not count, and a, b have some"
    assert finding.advice == "SIDECAR_WATCHTOWER_COMPAT=true honours them"


async def test_labels_that_are_not_honoured_are_told_by_container(tmp_path: Path, parts: Parts, engine: FakeEngine):
    """With what is held for them; what is honoured makes a target and is not spoken of."""
    environ = {"SIDECAR_WATCHTOWER_COMPAT": "true", "SIDECAR_DOCKER_HOST": "tcp://x:1", "HOME": str(tmp_path)}
    settings = load_settings(environ, tmp_path)
    engine.containers = [theirs("a", monitor_only="true"), theirs("b", stop_signal="SIGHUP"), theirs("c", enable="no")]
    says = [finding.says for finding in await found(settings, parts, "watchtower")]
    assert [each.split(": ")[:2] for each in says] == [
        ["docker:b", "label com.centurylinklabs.watchtower.stop-signal"],
        ["docker:c", "label com.centurylinklabs.watchtower.enable"],
    ]
    held, counted = await found(settings, parts, "targets")
    assert held.says == "docker:b cannot be looked after"
    assert counted.says == "of 3 containers 2 are managed: a, c; 1 is held: b"


def test_variables_that_are_not_honoured_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Before anything is looked at."""
    environ = {"SIDECAR_WATCHTOWER_COMPAT": "true", "WATCHTOWER_RUN_ONCE": "true", "HOME": str(tmp_path)}
    main(["doctor", "--json"], {**environ, "SIDECAR_DOCKER_HOST": "unix:///none"}, tmp_path)
    first = json.loads(capsys.readouterr().out)[0]
    assert (first["status"], first["part"]) == ("warning", "settings")
    assert first["says"].startswith("WATCHTOWER_RUN_ONCE: the daemon stays")
