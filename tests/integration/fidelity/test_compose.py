"""Compose finds its containers as it left them, and up to date."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integration.engines import OF_ANY_ENGINE
from tests.integration.fidelity.cases import (
    mark,
    marks,
)
from tests.integration.inspects import changes
from tests.integration.line import Json, Line
from tests.integration.versions import app

# Time decides nothing here: on a busy machine an update takes as long as it takes.
pytestmark = pytest.mark.timeout(900)

IMAGE_LABEL = "Config.Labels.com.docker.compose.image"
COMPOSE = """
name: shop
services:
  db:
    image: {other}
    restart: always
    volumes: [/own, "named:/named"]
  web:
    image: {reference}
    command: [/serve, mine]
    environment: {{OWN: own}}
    labels: {{sidecar.enable: "true", sidecar.min-ready: 0.2s}}
    ports: ["18098:8080"]
    volumes: [/own, "named:/named", {{type: tmpfs, target: /cache, tmpfs: {{size: 65536}}}}]
    networks: {{default: {{aliases: [shopfront]}}, inner: {{ipv4_address: 10.97.0.9}}}}
    depends_on: {{db: {{condition: service_started}}}}
    healthcheck: {{interval: 300ms}}
    stop_grace_period: 20s
    ulimits: {{nofile: {{soft: 2000, hard: 3000}}}}
volumes: {{named: }}
networks: {{inner: {{ipam: {{config: [{{subnet: 10.97.0.0/24}}]}}}}}}
"""


@pytest.mark.fidelity(1, 2, 33)
async def test_compose_finds_the_result_up_to_date(line: Line, tmp_path: Path) -> None:
    """Compose's label names the image that runs, and `up` makes nothing anew; what it makes later has the same data."""
    line.push(app("1"), "db:1")
    references = {"reference": line.store.reference("app:1"), "other": line.store.reference("db:1")}
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE.format(**references))

    async def up() -> list[Json]:
        await asyncio.to_thread(line.real.compose, "up", "--detach", cwd=tmp_path)
        return [await line.inspect(name) for name in ("shop-web-1", "shop-db-1")]

    before, db = await up()
    await mark(line, "shop-web-1", "/own", "/data")
    for version in ("2", "3"):
        line.push(app(version))
        await line.update("shop-web-1")
        after = await line.inspect("shop-web-1")
        changed = changes(before, after)
        assert changed.pop(IMAGE_LABEL) == (before["Image"], after["Image"])
        assert not {"Config.Cmd", "Config.Env.OWN", "Config.Healthcheck.Interval", "Mounts./own"} & changed.keys()
        assert all(path.startswith(("Config.", "Args", "Mounts./only")) for path in changed), changed
        [again, same_db] = await up()
        assert (again["Id"], same_db["Id"]) == (after["Id"], db["Id"])
        before = again
    file.write_text(COMPOSE.format(**references).replace("OWN: own", "OWN: other"))
    [anew, _] = await up()
    assert anew["Id"] != after["Id"]
    assert await marks(line, "shop-web-1", "/own", "/data") == ["/own", "/data"]


SHARED = """
name: shop
services:
  db:
    image: {other}
    command: [/serve, db]
  web:
    image: {reference}
    command: [sleep, "999"]
    env_file: [web.env]
    labels: {{sidecar.enable: "true", sidecar.min-ready: 0.2s}}
    network_mode: service:db
    volumes_from: [db]
    healthcheck: {{disable: true}}
    stop_signal: KILL
"""


@pytest.mark.fidelity(17, 34, 36)
@OF_ANY_ENGINE
async def test_a_service_that_shares_anothers_network_stays_compose_s(line: Line, tmp_path: Path) -> None:
    """It keeps its hash and what it was made with, not what its files say by now; Compose itself brings that later."""
    line.push(app("1"), "db:1")
    references = {"reference": line.store.reference("app:1"), "other": line.store.reference("db:1")}
    (tmp_path / "compose.yaml").write_text(SHARED.format(**references))
    (tmp_path / "web.env").write_text("OWN=own\n")

    async def up() -> tuple[Json, Json]:
        await asyncio.to_thread(line.real.compose, "up", "--detach", cwd=tmp_path)
        return await line.inspect("shop-web-1"), await line.inspect("shop-db-1")

    before, db = await up()
    line.push(app("2"))
    await line.update("shop-web-1")
    after = await line.inspect("shop-web-1")
    hashes = [each["Config"]["Labels"]["com.docker.compose.config-hash"] for each in (before, after)]
    assert hashes[0] == hashes[1]
    assert after["HostConfig"]["NetworkMode"] == f"container:{db['Id']}"
    assert [each["Id"] for each in await up()] == [after["Id"], db["Id"]]
    (tmp_path / "web.env").write_text("OWN=other\n")
    line.push(app("3"))
    await line.update("shop-web-1")
    drifted = await line.inspect("shop-web-1")
    assert "OWN=own" in drifted["Config"]["Env"]
    anew, _ = await up()
    assert anew["Id"] != drifted["Id"]
    assert {"OWN=other", "VERSION=3"} <= set(anew["Config"]["Env"])
