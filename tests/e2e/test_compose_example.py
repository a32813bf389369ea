"""`compose.example.yml`, done as it says: a push to its own registry reaches its web application."""

from __future__ import annotations

import json
import re
import secrets
import textwrap
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.tokens import LENGTH
from tests.e2e.registry_image import load_registry_image
from tests.e2e.shipped import Answer, Shipped, ask
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.product import ROOT

FILE = "compose.example.yml"
TEXT = (ROOT / FILE).read_text()
WEB = "localhost:5000/web:latest"
OWN_NETWORKS = {"bridge", "host", "none"}


class Example:
    """The example's stack on an engine where all of its images are."""

    def __init__(self, shipped: Shipped) -> None:
        self.engine = shipped.engine
        self.token = secrets.token_hex(24)
        self.environ = {
            **self.engine.environment,
            "SIDECAR_IMAGE": shipped.image,
            "SIDECAR_TOKEN": self.token,
            "DOCKER_GID": shipped.group,
        }

    def do(self, command: str) -> str:
        """Do what the file's comments say, word for word."""
        assert command in TEXT, f"{FILE} does not say {command!r}"
        return self.compose(*command.split()[2:])

    def compose(self, *arguments: str) -> str:
        """Run Compose, and give what it printed."""
        answer = self.ask("docker", "compose", *arguments)
        assert answer.status == 0, answer.err
        return answer.out

    def ask(self, *command: str) -> Answer:
        return ask([*command], cwd=ROOT, **self.environ)

    def sidecar(self, *command: str) -> Answer:
        """Run a command in Sidecar's container, as the file's comments do."""
        return self.ask("docker", "compose", "-f", FILE, "exec", "-T", "sidecar", "sidecar", *command)

    def push(self, version: str) -> None:
        """Put in place what `docker build` would have made, and push it."""
        images.load(self.engine, images.web(version), WEB)
        answer = self.ask("docker", "push", WEB)
        assert answer.status == 0, answer.err

    def answers(self) -> str:
        """Ask the web application for its version, where the file publishes it."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.engine.reach(8000)}/", timeout=2) as response:
                return str(response.read().decode().strip())
        except OSError:
            return ""

    def logs(self, service: str) -> str:
        return self.compose("-f", FILE, "logs", "--no-log-prefix", "--no-color", service)


@pytest.fixture
def example(shipped: Shipped) -> Iterator[Example]:
    load_registry_image(shipped.engine)
    made = Example(shipped)
    yield made
    made.ask("docker", "compose", "-f", FILE, "down", "--volumes")


def test_compose_accepts_it_with_every_profile(engine: Engine):
    """Each profile, all of them together and none are accepted, and what has to be set is asked for."""
    environ = {**engine.environment, "SIDECAR_TOKEN": secrets.token_hex(24)}
    config = ["docker", "compose", "-f", FILE]
    profiles = ask([*config, "config", "--profiles"], cwd=ROOT, **environ).out.split()
    assert profiles == ["read-only"]
    for wanted in ([], ["--profile", "*"], *(["--profile", profile] for profile in profiles)):
        answer = ask([*config, *wanted, "config", "--quiet"], cwd=ROOT, **environ)
        assert (answer.status, answer.err) == (0, "")
    unset = ask([*config, "config", "--quiet"], cwd=ROOT, **engine.environment, SIDECAR_TOKEN="")
    assert unset.status != 0
    assert LENGTH in unset.err


def test_compose_accepts_the_stack_of_the_readme(engine: Engine, tmp_path: Path):
    """What people copy out of the README is a whole stack."""
    (stack,) = re.findall(r"```yaml\n( *services:\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "compose.yaml").write_text(textwrap.dedent(stack))
    answer = ask(["docker", "compose", "config", "--quiet"], cwd=tmp_path, **engine.environment)
    assert (answer.status, answer.err) == (0, "")


def test_a_push_to_its_registry_reaches_its_application(example: Example, shipped: Shipped):
    """Brought up as the comments say, the registry itself notifies Sidecar; taken down, nothing is left."""
    example.do("docker compose -f compose.example.yml up -d registry sidecar")
    example.push("1")
    example.do("docker compose -f compose.example.yml up -d web")
    shipped.until(lambda: example.answers() == "1", "version 1 answers")
    shipped.until(lambda: example.sidecar("healthcheck", "--ready").status == 0, "Sidecar is ready")

    example.push("2")
    shipped.until(lambda: example.answers() == "2", "version 2 answers")
    shipped.until(lambda: "rollout.succeeded" in example.logs("sidecar"), "the update has succeeded")
    check_notifications(example)
    check_commands(example)
    before = example.compose("-f", FILE, "ps", "--quiet")
    example.compose("-f", FILE, "up", "--detach")
    assert example.compose("-f", FILE, "ps", "--quiet") == before, "Compose found something to do"

    example.compose("-f", FILE, "down", "--volumes")
    api = example.engine.api
    assert api.get("/containers/json", all=True) == []
    assert not api.get("/volumes")["Volumes"]
    assert {network["Name"] for network in api.get("/networks")} == OWN_NETWORKS


def check_notifications(example: Example) -> None:
    """The registry reads its endpoint from the environment, and leaves out what it is told to ignore.

    Without that it would tell of every layer of the pushes, and of Sidecar's and the engine's own pulls.
    """
    log = example.logs("registry")
    assert f"configuring endpoint sidecar (http://host.docker.internal:8080/hooks/distribution/{example.token})" in log
    assert "timeout=1s" in log
    assert "unrecognized environment variable" not in log
    deliveries = json.loads(example.sidecar("history", "--json").out)["deliveries"]
    assert deliveries
    assert {each["source"] for each in deliveries} == {"distribution"}
    assert {each["fate"] for each in deliveries} == {"accepted"}
    assert {hint for each in deliveries for hint in each["hints"]} == {WEB}


def check_commands(example: Example) -> None:
    """What the comments have people run works."""
    doctor = example.sidecar("doctor")
    assert doctor.status == 0
    assert not re.search(r"^(failed|warning)", doctor.out, re.MULTILINE), doctor.out
    command = "docker compose -f compose.example.yml exec sidecar sidecar url dockerhub --base https://your.host"
    assert example.do(command) == f"https://your.host/hooks/dockerhub/{example.token}\n"
