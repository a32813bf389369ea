"""What the application could do that Sidecar began from, second part: its ping, its settings, and what it kept."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sidecar.settings_model import Settings, load_settings
from sidecar.web.api import api_routes, under
from sidecar.web.auth import open_guard
from sidecar.web.events import EventStream
from sidecar.web.openapi import docs_routes
from sidecar.web.pages import page_routes
from tests.web.fake_control import DELIVERY, FakeControl

Client = TestClient[web.Request, web.Application]
DOTENV = """\
SIDECAR_TITLE="Dashboards Webhook"
SIDECAR_ENV=dev
SIDECAR_ROOT_PATH=/webhook
SIDECAR_DOCS=true
SIDECAR_REGISTRY_USERNAME=account1
SIDECAR_REGISTRY_PASSWORD=dckr_pat_secret
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / ".env").write_text(DOTENV)
    return load_settings({}, tmp_path)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    control, app = FakeControl(), web.Application()
    routes = [
        *page_routes(control, title=settings.title, env=settings.env),
        *api_routes(control, EventStream(), open_guard),
        *docs_routes(settings.title, version="1", root_path=settings.root_path),
    ]
    app.add_routes(under(settings.root_path, routes))
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/webhook/"])
async def test_answers_the_liveness_ping_with_pong(client: Client, path: str):
    """The root answers ``{"ping": "pong"}``, behind a proxy's prefix too."""
    async with client.get(path) as response:
        assert response.status == 200
        assert await response.json() == {"ping": "pong"}


def test_takes_its_settings_from_dotenv(settings: Settings):
    """Title, environment, root path, documentation switch, user and token stand in a `.env`."""
    assert (settings.title, settings.env, settings.root_path) == ("Dashboards Webhook", "dev", "/webhook")
    assert settings.docs
    assert settings.registry_username == "account1"
    assert settings.registry_password is not None
    assert settings.registry_password.get_secret_value() == "dckr_pat_secret"


def test_has_no_documentation_unless_asked(tmp_path: Path):
    """The documentation is off in production without anybody thinking of it."""
    assert not load_settings({}, tmp_path).docs


async def test_shows_its_documentation_when_asked(client: Client):
    """With the switch on there is a page under the prefix, with the title."""
    async with client.get("/webhook/docs") as response:
        assert "Dashboards Webhook" in await response.text()


async def test_gives_the_history_of_received_bodies(client: Client):
    """What senders sent can be read again, what was refused too."""
    async with client.get("/webhook/api/v1/history?bodies=true") as response:
        deliveries = (await response.json())["deliveries"]
    assert [delivery["body"] for delivery in deliveries] == [DELIVERY.body.decode()]
