"""A daemon behind its API, served from a thread: commands are synchronous."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from sidecar.web.api import api_routes
from sidecar.web.auth import bearer_guard, open_guard
from sidecar.web.events import EventStream
from sidecar.web.pages import page_routes
from sidecar.web.sockets import control_socket
from tests.web.fake_control import FakeControl

ADMIN_TOKEN = "the-admin-token-of-this-test"
Told = tuple[str, dict[str, object]]


class ServedDaemon(FakeControl):
    """Implements `control_port.Control`, and tells what it is given to tell once an update is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.port = 0
        self.stream = EventStream()
        self.tells: list[Told] = []
        self.ends_stream_after: int | None = None
        self.goes_away = False
        self.targets_of_update: Sequence[str] = ("docker:web",)

    async def update(self, text: str) -> tuple[str, Sequence[str]]:
        delivery_id, _ = await super().update(text)
        asyncio.get_running_loop().call_later(0.001, self._tell)
        return delivery_id, self.targets_of_update

    def _tell(self) -> None:
        for number, (event, facts) in enumerate(self.tells):
            if number == self.ends_stream_after:
                if self.goes_away:
                    (self.folder / "control.sock").unlink()
                self.stream.close()
            self.stream.publish(event, **facts)

    async def serve(self, ready: threading.Event, stopping: asyncio.Event) -> None:
        runners = []
        for guard in (bearer_guard(ADMIN_TOKEN), open_guard):
            app = web.Application()
            app.add_routes([*page_routes(self, title="", env=""), *api_routes(self, self.stream, guard)])
            runners.append(web.AppRunner(app, handle_signals=False, shutdown_timeout=0.1))
            await runners[-1].setup()
        site = web.TCPSite(runners[0], "127.0.0.1", 0)
        await site.start()
        self.port = runners[0].addresses[0][1]
        await web.SockSite(runners[1], control_socket(self.folder)).start()
        ready.set()
        await stopping.wait()
        self.stream.close()
        for runner in runners:
            await runner.cleanup()


@contextmanager
def served(folder: Path) -> Iterator[ServedDaemon]:
    """Serve a daemon that keeps its state in this folder."""
    daemon, ready = ServedDaemon(folder), threading.Event()
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(daemon.serve(ready, stopping)), daemon=True)
    thread.start()
    assert ready.wait(2)
    yield daemon
    loop.call_soon_threadsafe(stopping.set)
    thread.join()
    loop.close()
