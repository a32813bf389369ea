"""What Compose copied into a container comes along; what else is in its own layer stays behind, and the log says so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integration.engines import OF_ANY_ENGINE
from tests.integration.fidelity.cases import ILL_WHEN_TOLD, assert_untouched, is_old, made
from tests.integration.inspects import changes
from tests.integration.line import Json, Line
from tests.integration.versions import app

pytestmark = [pytest.mark.timeout(900), OF_ANY_ENGINE]

COMPOSE = """
name: shop
services:
  web:
    image: {reference}
    user: {user}
    labels: {{sidecar.enable: "true", sidecar.min-ready: 0.2s}}
    configs:
      - plain
      - {{source: custom, target: /etc/app/custom.conf, uid: "1009", gid: "1010", mode: 0640}}
      - {{source: custom, target: /etc/app.conf}}
    secrets:
      - token
      - {{source: token, target: /opt/other, mode: 0400, uid: "1000"}}
configs:
  plain: {{environment: WORD}}
  custom: {{content: "custom = {value}\\n"}}
secrets:
  token: {{environment: TOKEN}}
"""
PLACES = ("/plain", "/etc/app/custom.conf", "/etc/app.conf", "/run/secrets/token", "/opt/other")
VARIABLES = {"WORD": "word", "TOKEN": "hunter2"}


async def up(line: Line, folder: Path, *options: str) -> Json:
    command = ("up", "--detach", *options)
    await asyncio.to_thread(line.real.compose, *command, cwd=folder, env=VARIABLES)
    return await line.inspect("shop-web-1")


async def found(line: Line) -> str:
    """Give type, mode, owner, size and content of everything that Compose copied."""
    listed = f"for each in {' '.join(PLACES)}; do busybox stat -c '%n %F %a %u %g %s' $each; cat $each; echo; done"
    return await line.docker("exec", "--user=0", "shop-web-1", "sh", "-c", listed)


def user(line: Line) -> str:
    """Name the user whom Compose gives what it copies to; Engine 20.10 looks for it on its host."""
    return "root" if is_old(line) else "web"


def write(line: Line, folder: Path, value: str = "1") -> None:
    (folder / "compose.yaml").write_text(
        COMPOSE.format(reference=line.store.reference("app:1"), value=value, user=user(line))
    )


@pytest.mark.fidelity(35, 37)
async def test_what_compose_copied_is_there_after_each_update(line: Line, tmp_path: Path) -> None:
    """Configs and secrets by content or variable stay, wherever they are and whosoever; what else is there does not."""
    write(line, tmp_path)
    await up(line, tmp_path)
    at_first = await found(line)
    owner = "0 0" if is_old(line) else "1000 1000"
    assert f"/etc/app/custom.conf regular file 640 {owner} 11\ncustom = 1" in at_first
    assert "hunter2" in at_first
    for version in ("2", "3"):
        own = "mkdir /app; echo mine >/app/own; cp -p /bin/busybox /app/unpacked; chown 1009 /www/*; chmod 777 /health"
        await line.docker("exec", "--user=0", "shop-web-1", "sh", "-c", own)
        await line.docker("restart", "--time=1", "shop-web-1")
        line.push(app(version))
        await line.update("shop-web-1")
        assert await found(line) == at_first
        assert await line.docker("exec", "shop-web-1", "cat", "/www/index.html") == version
        assert "A /app" not in (await line.docker("diff", "shop-web-1")).splitlines()
        after = await line.inspect("shop-web-1")
        assert (await up(line, tmp_path))["Id"] == after["Id"]
    assert "hunter2" not in str(line.events.told)
    assert "hunter2" not in str([(each.plan, each.reason) for each in line.journal.recorded])
    left = line.noted("shop-web-1")
    assert len(left) == 2
    assert all(said.endswith(" wrote outside of its volumes stay behind with the old container") for said in left)
    write(line, tmp_path, value="2")
    await up(line, tmp_path, "--force-recreate")
    assert await found(line) == at_first.replace("custom = 1", "custom = 2")


@pytest.mark.fidelity(35)
async def test_a_rollback_has_its_configs_even_where_its_container_is_gone(line: Line, tmp_path: Path) -> None:
    """The old one has what Compose copied; where somebody removed it, it is made again with that of the new one."""
    write(line, tmp_path)
    before = await up(line, tmp_path)
    at_first = await found(line)

    def remove_and_close_the_gate() -> None:
        names = {name for each in line.real.api.get("/containers/json", all=True) for name in each["Names"]}
        if "/shop-web-1.sidecar-old" in names:
            line.real.api.delete("/containers/shop-web-1.sidecar-old", v=True)
            line.real.docker("exec", "--user=0", "shop-web-1", "touch", "/ill")

    line.hints.on_wait = remove_and_close_the_gate
    line.push(app("2", Healthcheck=ILL_WHEN_TOLD))
    outcome = await line.run_pass("shop-web-1")
    assert outcome.startswith("hold: rolled_back: became unhealthy"), outcome
    after = await line.inspect("shop-web-1")
    assert after["Id"] != before["Id"]
    assert changes(before, after) == {}
    assert await found(line) == at_first


@pytest.mark.fidelity(35, by="hold")
async def test_what_may_be_a_config_is_held(line: Line, tmp_path: Path) -> None:
    """A file of whole seconds from between the creation and the start may be either: neither lost nor carried over."""
    write(line, tmp_path)
    await up(line, tmp_path)
    # Just before the creation, as by the clock of another machine.
    script = "echo x >/plugin && touch -d @$(( $(busybox stat -c %Y /plain) - 60 )) /plugin"
    await line.docker("exec", "--user=0", "shop-web-1", "sh", "-c", script)
    before = await line.inspect("shop-web-1")
    line.push(app("2"))
    outcome = await line.run_pass("shop-web-1")
    assert "whether /plugin is a config of Compose or was written by the application cannot be told" in outcome
    assert_untouched(before, await line.inspect("shop-web-1"))


@pytest.mark.fidelity(37)
async def test_what_stays_behind_is_said_with_its_size(line: Line) -> None:
    """Data in a container's own layer do not come along, as by any recreate; the log says how much that is, before."""
    cases = {"full": made(), "empty": made()}
    for name, case in cases.items():
        await case.make(line, name)
    await line.docker(
        "exec", "--user=0", "full", "sh", "-c", "mkdir /own && busybox head -c 3000000 /dev/zero >/own/data"
    )
    line.push(app("2"))
    await line.update(*cases)
    assert line.noted("full") == ["3 MiB that full wrote outside of its volumes stay behind with the old container"]
    assert line.noted("empty") == []
    told = [event for event, facts in line.events.told if facts.get("target") == "docker:full"]
    assert told.index("rollout.noted") < told.index("rollout.finishing")
    assert "/own" not in await line.docker("diff", "full")
