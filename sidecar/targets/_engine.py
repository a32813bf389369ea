"""The Docker engine's API for asyncio: one method makes one call and decides nothing.

This is the only module that knows the Docker SDK, and the only one that leaves the event loop. Of the SDK it uses the
client itself, as a session that speaks HTTP over the engine's socket, and posts and gives the engine's own JSON: the
typed calls lose fields that they do not know, list by one inspect a container, and hide the errors of a pull.

Threads: each call has one of its own, a daemon, and their number is bounded. Those of an executor are joined when the
interpreter ends, whatever `shutdown` was told, so one call to a hanging engine would hold up a SIGTERM. Clients: one
serves one call at a time and is then used again, since a `requests.Session` does not promise to be thread-safe.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlsplit

import docker
import docker.auth
import docker.errors
import requests

from sidecar.errors import Misconfigured, Refused, Transient, Unreachable
from sidecar.targets.logtail import tail_of
from sidecar.targets.pull import PullProgress, failure_of, is_refusal

Json = dict[str, Any]
T = TypeVar("T")

DEFAULT_URL: Final = "unix:///var/run/docker.sock"
OLDEST_API: Final = (1, 41)
"""Engine 20.10; older ones do not know the platform of a container to be created."""
LAST_API_WITH_MAC: Final = (1, 51)

_MOST_CALLS = 16
_STOP_MARGIN_SECONDS = 30
_PRUNE_SECONDS = 600
_PULL_SILENCE_SECONDS = 600
_PROGRESS_SECONDS = 0.1
_LOG_BYTES = 64 * 1024
_MESSAGE_CHARACTERS = 1000
_FIRST_UNEXPECTED = 300


class EngineError(Transient):
    """The engine answered, and its answer was no.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_missing(self) -> bool:
        """Say whether what was asked for does not exist, rather than the call itself."""
        return self.status == requests.codes.not_found and "page not found" not in str(self)


class NameConflict(EngineError):
    """Another container has the name."""


class _Silent(Unreachable):
    """The engine took the call and did not answer in time."""


class _Threads:
    """Runs calls in daemon threads, so many at once; who gives one up leaves its thread to end by itself."""

    def __init__(self, most: int, *, patience_seconds: float | None) -> None:
        self._free = asyncio.Semaphore(most)
        self._patience_seconds = patience_seconds

    async def start(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Start a call as soon as there is room; its future is the caller's."""
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            message = "calling the engine: too many calls wait for its answer"
            raise Unreachable(message) from error
        loop = asyncio.get_running_loop()
        outcome: Future[T] = Future()
        outcome.set_running_or_notify_cancel()

        def work() -> None:
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 - it is raised where the future is awaited
                outcome.set_exception(error)
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._free.release)

        threading.Thread(target=work, name="engine-call", daemon=True).start()
        return asyncio.wrap_future(outcome)


class _Stream:
    """An answer that one thread reads and another can cut off."""

    def __init__(self) -> None:
        self._response: requests.Response | None = None
        self._is_aborted = False

    def events_of(self, response: requests.Response) -> Iterator[Json]:
        """Read one JSON object a line, as they come."""
        self._response = response
        for line in response.iter_lines(chunk_size=None):
            if self._is_aborted:
                return
            if line:
                yield json.loads(line)

    def abort(self) -> None:
        """Let the reading thread see the end of the stream; it closes the connection, which ends it in the engine."""
        self._is_aborted = True
        if self._response is not None:
            with suppress(OSError, RuntimeError, ValueError):  # it has ended by itself
                self._response.raw.shutdown()


class _Http:
    """The SDK's clients, each for one call at a time, and what their failures mean. Used in threads."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self.url = url
        self._timeout_seconds = timeout_seconds
        self._idle: list[docker.APIClient] = []
        self._is_closed = False

    @contextmanager
    def open(self, method: str, path: str, **request: Any) -> Iterator[requests.Response]:
        """Make a call and hold its answer, not yet read."""
        seconds = (self._timeout_seconds, request.pop("read_seconds", self._timeout_seconds))
        call, client = f"{method} {path}", self._take()
        try:
            with (
                self._failures_of(call),
                client.request(
                    method, client.base_url + path, timeout=seconds, stream=True, allow_redirects=False, **request
                ) as response,
            ):
                if response.status_code >= _FIRST_UNEXPECTED and response.status_code != requests.codes.not_modified:
                    raise _refusal_of(call, response)
                yield response
        finally:
            self._give_back(client)

    def close(self) -> None:
        """Close what is idle; what is used is closed when it is given back."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> docker.APIClient:
        with suppress(IndexError):
            return self._idle.pop()
        try:
            # A version given is one not asked for; each call names its own.
            client = docker.APIClient(base_url=self.url, version="1.41")
        except docker.errors.DockerException as error:
            message = f"using the engine at {self.url!r}: {error}"
            raise Misconfigured(message) from error
        client.trust_env = False  # no web proxy stands before an engine
        return client

    def _give_back(self, client: docker.APIClient) -> None:
        if self._is_closed:
            client.close()
        else:
            self._idle.append(client)

    @contextmanager
    def _failures_of(self, call: str) -> Iterator[None]:
        try:
            yield
        except requests.RequestException as error:
            cause = _system_error(error)
            kind = _Silent if isinstance(cause, TimeoutError) else Unreachable
            message = f"calling {call} of the engine at {self.url!r}: {_advice(cause, self.url)}"
            raise kind(message) from error
        except ValueError as error:
            message = f"calling {call} of the engine at {self.url!r}: its answer is cut off or is no JSON"
            raise Unreachable(message) from error


class Engine:
    """One engine. It may be restarted or replaced by a newer one: nothing has to be made anew here.

    Attributes:
        api_version: the newest that the engine speaks; an older one makes it drop what that did not know.
        platform: operating system and architecture of the engine, as images name them: ``linux/amd64``.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self.api_version = OLDEST_API
        self.platform = ""
        self._http = _Http(url, timeout_seconds)
        self._short = _Threads(_MOST_CALLS, patience_seconds=timeout_seconds)
        self._long = _Threads(_MOST_CALLS, patience_seconds=None)
        self._streams: set[_Stream] = set()

    @classmethod
    async def connect(cls, url: str | None = None, *, timeout_seconds: float = 60) -> Self:
        """Find out which API the engine speaks.

        Raises:
            Unreachable: it does not answer; the message says what to do.
            Misconfigured: it is too old, or the address is none.
        """
        engine = cls(url or DEFAULT_URL, timeout_seconds=timeout_seconds)
        version = await engine.version()
        engine._adopt(version.get("ApiVersion", ""))
        engine.platform = f"{version.get('Os', 'linux')}/{version.get('Arch', 'amd64')}"
        if version.get("Arch") == "arm":  # 32 bits: which of them is in the kernel's name only
            machine = (await engine.info()).get("Architecture", "")
            engine.platform += "/v6" if machine.startswith("armv6") else "/v7"
        return engine

    async def close(self) -> None:
        """Cut off what streams, and wait for nothing."""
        for stream in tuple(self._streams):
            stream.abort()
        self._http.close()

    async def ping(self) -> None:
        """Ask whether the engine is there, and notice that it has become another version."""
        response = await self._call("GET", "/_ping", prefix="")
        if spoken := response.headers.get("Api-Version"):
            self._adopt(spoken)

    async def version(self) -> Json:
        """Give the engine's version, platform and the APIs it speaks."""
        return _dict(await self._call("GET", "/version", prefix=""))

    async def info(self) -> Json:
        """Give what the engine says of itself and its host."""
        return _dict(await self._call("GET", "/info"))

    async def list_containers(self, *, filters: Mapping[str, list[str]] | None = None) -> list[Json]:
        """List containers, stopped ones too, without inspecting each."""
        return _list(await self._call("GET", "/containers/json", params={"all": 1, **_filtered(filters)}))

    async def inspect_container(self, ident: str) -> tuple[Json, float] | None:
        """Give a container and the engine's clock as of that answer; None when there is none."""
        path = f"/containers/{_quoted(ident)}/json"
        response = await self._find(path)
        if response is None:
            return None
        container = _dict(response)
        if self.api_version > LAST_API_WITH_MAC:
            await self._add_mac(path, container)
        return container, _date_of(response)

    async def inspect_image(self, ident: str) -> Json | None:
        """Give an image; None when there is none."""
        response = await self._find(f"/images/{_quoted(ident)}/json")
        return None if response is None else _dict(response)

    async def list_images(self, *, filters: Mapping[str, list[str]] | None = None) -> list[Json]:
        """List images, without the layers that a build left between them."""
        return _list(await self._call("GET", "/images/json", params=_filtered(filters)))

    async def create_container(self, body: Json, *, name: str, platform: str | None) -> str:
        """Create a container from a raw request and give its id.

        Raises:
            NameConflict: the name is taken.
        """
        params = {"name": name, "platform": platform}
        response = await self._naming("/containers/create", params=params, json=body)
        return str(_dict(response)["Id"])

    async def connect_network(self, network: str, container: str, endpoint: Json) -> None:
        """Connect a container to a network."""
        body = {"Container": container, "EndpointConfig": endpoint}
        await self._call("POST", f"/networks/{_quoted(network)}/connect", json=body)

    async def disconnect_network(self, network: str, container: str, *, force: bool) -> None:
        """Take a container out of a network."""
        body = {"Container": container, "Force": force}
        await self._call("POST", f"/networks/{_quoted(network)}/disconnect", json=body)

    async def start(self, ident: str) -> None:
        """Start a container; one that runs already is left alone."""
        await self._call("POST", f"/containers/{_quoted(ident)}/start")

    async def stop(self, ident: str, *, grace_seconds: int) -> None:
        """Stop a container, killing it after the grace; one that is stopped already is left alone.

        Raises:
            Transient: it still runs some time after the grace. The engine goes on stopping it.
        """
        seconds = max(grace_seconds, 0) + _STOP_MARGIN_SECONDS
        path, params = f"/containers/{_quoted(ident)}/stop", {"t": grace_seconds}
        try:
            await self._call("POST", path, params=params, read_seconds=seconds)
        except _Silent as error:
            raise Transient(str(error)) from error

    async def rename(self, ident: str, name: str) -> None:
        """Give a container another name.

        Raises:
            NameConflict: the name is taken.
        """
        await self._naming(f"/containers/{_quoted(ident)}/rename", params={"name": name})

    async def set_restart_policy(self, ident: str, policy: Json) -> None:
        """Change a container's restart policy."""
        await self._call("POST", f"/containers/{_quoted(ident)}/update", json={"RestartPolicy": policy})

    async def pause(self, ident: str) -> None:
        """Freeze a container."""
        await self._call("POST", f"/containers/{_quoted(ident)}/pause")

    async def unpause(self, ident: str) -> None:
        """Let a frozen container go on."""
        await self._call("POST", f"/containers/{_quoted(ident)}/unpause")

    async def remove_container(self, ident: str, *, volumes: bool, force: bool = False) -> None:
        """Remove a container, with its anonymous volumes if told; one that is gone or going is left alone."""
        params = {"v": int(volumes), "force": int(force)}
        try:
            await self._call("DELETE", f"/containers/{_quoted(ident)}", params=params)
        except EngineError as error:
            if not error.is_missing and "already in progress" not in str(error):
                raise

    async def tag(self, image: str, *, repository: str, tag: str) -> None:
        """Let a tag name an image."""
        await self._call("POST", f"/images/{_quoted(image)}/tag", params={"repo": repository, "tag": tag})

    async def untag(self, reference: str) -> None:
        """Take a name off an image; one that names nothing is left alone."""
        await self._delete_image(reference, noprune=1)

    async def remove_image(self, ident: str) -> bool:
        """Remove an image; say no when it is in use, has several names, or is not there."""
        try:
            return await self._delete_image(ident)
        except EngineError as error:
            if error.status == requests.codes.conflict:
                return False
            raise

    async def prune_images(self) -> Json:
        """Remove every image that has no name and is not used."""
        return await self._prune("images", {"dangling": ["true"]})

    async def prune_system(self) -> Json:
        """Do what ``docker system prune --force`` does: remove what is stopped, unused or nameless."""
        removed: Json = {}
        for what in ("containers", "networks", "images", "build"):
            answer = await (self.prune_images() if what == "images" else self._prune(what))
            space = removed.get("SpaceReclaimed", 0) + (answer.pop("SpaceReclaimed", 0) or 0)
            removed |= {**answer, "SpaceReclaimed": space}
        return removed

    async def logs(self, ident: str, *, tail: int) -> str:
        """Give the last lines of a container's output."""
        path, params = f"/containers/{_quoted(ident)}/logs", {"stdout": 1, "stderr": 1, "tail": tail}

        def read() -> str:
            with self._http.open("GET", self._prefix + path, params=params) as response:
                return tail_of(response.iter_content(_LOG_BYTES), limit_bytes=_LOG_BYTES)

        return await (await self._short.start(read))

    async def pull(
        self,
        repository: str,
        digest: str,
        *,
        platform: str | None,
        auth: Json | None,
        progress: Callable[[Json], None],
    ) -> None:
        """Pull exactly this digest, telling now and then how far it is; given up, it ends in the engine too.

        Raises:
            Refused: the registry does not know it, does not let us see it, or has it for other machines only.
            Transient: the registry or the engine failed, the disk is full, or nothing was heard for long.
        """
        params = {"fromImage": repository, "tag": digest, "platform": platform}
        headers = {"X-Registry-Auth": docker.auth.encode_header(auth).decode()} if auth else {}
        loop = asyncio.get_running_loop()

        def read(stream: _Stream) -> str | None:
            call = ("POST", f"{self._prefix}/images/create")
            with self._http.open(*call, params=params, headers=headers, read_seconds=_PULL_SILENCE_SECONDS) as response:
                events = stream.events_of(response)
                return _follow(events, tell=lambda numbers: loop.call_soon_threadsafe(progress, numbers))

        try:
            async with self._streaming(read) as reading:
                failure = await reading
        except EngineError as error:
            failure = str(error)
        except _Silent as error:
            raise Transient(str(error)) from error
        if failure is not None:
            message = f"pulling {repository}@{digest}: {_without_secrets(failure, auth)}"
            raise Refused(message) if is_refusal(failure) else Transient(message)

    async def events(self) -> AsyncIterator[Json]:
        """Give what happens to containers, as it happens; closed, it ends in the engine too.

        Raises:
            Unreachable: the connection is lost; what happens until the next one is not heard of.
        """
        heard: asyncio.Queue[Json | BaseException] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        lost = Unreachable(f"listening to the engine at {self._http.url!r}: it ended the stream")

        def read(stream: _Stream) -> None:
            call = ("GET", f"{self._prefix}/events")
            params = _filtered({"type": ["container"]})
            with self._http.open(*call, params=params, read_seconds=None) as response:
                for event in stream.events_of(response):
                    loop.call_soon_threadsafe(heard.put_nowait, event)

        async with self._streaming(read) as reading:
            reading.add_done_callback(lambda done: heard.put_nowait(_exception_of(done) or lost))
            while True:
                event = await heard.get()
                if isinstance(event, BaseException):
                    raise event
                yield event

    @asynccontextmanager
    async def _streaming(self, read: Callable[[_Stream], T]) -> AsyncIterator[asyncio.Future[T]]:
        stream = _Stream()
        reading = await self._long.start(partial(read, stream))
        self._streams.add(stream)
        try:
            yield reading
        finally:
            reading.cancel()
            stream.abort()
            self._streams.discard(stream)

    async def _call(self, method: str, path: str, *, prefix: str | None = None, **request: Any) -> requests.Response:
        def exchange() -> requests.Response:
            with self._http.open(method, (self._prefix if prefix is None else prefix) + path, **request) as response:
                response.content  # noqa: B018 - read to its end, here
                return response

        threads = self._long if "read_seconds" in request else self._short
        return await (await threads.start(exchange))

    async def _naming(self, path: str, **request: Any) -> requests.Response:
        try:
            return await self._call("POST", path, **request)
        except EngineError as error:
            if error.status == requests.codes.conflict:
                raise NameConflict(str(error), status=error.status) from error
            raise

    async def _find(self, path: str) -> requests.Response | None:
        try:
            return await self._call("GET", path)
        except EngineError as error:
            if error.is_missing:
                return None
            raise

    async def _add_mac(self, path: str, container: Json) -> None:
        """Put the address that the user asked for where it was until API 1.51; later ones hide it."""
        try:
            older = _dict(await self._call("GET", path, prefix="/v{}.{}".format(*LAST_API_WITH_MAC)))
        except EngineError as error:
            if error.status in {requests.codes.bad_request, requests.codes.not_found}:
                return  # an engine that no longer speaks it, or a container that has just gone
            raise
        if mac := older["Config"].get("MacAddress"):
            container["Config"]["MacAddress"] = mac

    async def _delete_image(self, name: str, **params: int) -> bool:
        try:
            await self._call("DELETE", f"/images/{_quoted(name)}", params=params)
        except EngineError as error:
            if error.is_missing:
                return False
            raise
        return True

    async def _prune(self, what: str, filters: Mapping[str, list[str]] | None = None) -> Json:
        path = f"/{what}/prune"
        return _dict(await self._call("POST", path, params=_filtered(filters), read_seconds=_PRUNE_SECONDS))

    @property
    def _prefix(self) -> str:
        return "/v{}.{}".format(*self.api_version)

    def _adopt(self, spoken: str) -> None:
        major, _, minor = spoken.partition(".")
        if not (major.isdecimal() and minor.isdecimal()):
            message = f"reading the engine's API version at {self._http.url!r}: {spoken!r} is no version"
            raise EngineError(message, status=requests.codes.ok)
        if (version := (int(major), int(minor))) < OLDEST_API:
            message = f"using the engine at {self._http.url!r}: it speaks API {spoken}, at least 1.41 (20.10) is needed"
            raise Misconfigured(message)
        self.api_version = version


def _quoted(name: str) -> str:
    return quote(name, safe="/:@")


def _filtered(filters: Mapping[str, list[str]] | None) -> Json:
    return {"filters": json.dumps(filters)} if filters else {}


def _dict(response: requests.Response) -> Json:
    return _typed(response, dict)


def _list(response: requests.Response) -> list[Json]:
    return _typed(response, list)


def _typed(response: requests.Response, kind: type[T]) -> T:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, kind):
        message = f"reading the engine's answer: {response.text[:100]!r} is not the JSON that was expected"
        raise EngineError(message, status=response.status_code)
    return answer


def _date_of(response: requests.Response) -> float:
    try:
        return parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, ValueError) as error:
        message = "reading the engine's clock: its answer has no valid Date header"
        raise EngineError(message, status=response.status_code) from error


def _refusal_of(call: str, response: requests.Response) -> EngineError:
    text = response.text
    with suppress(ValueError, KeyError, TypeError):
        text = response.json()["message"]
    message = f"calling {call}: the engine answered {response.status_code}: {text.strip()[:_MESSAGE_CHARACTERS]}"
    return EngineError(message, status=response.status_code)


def _follow(events: Iterator[Json], *, tell: Callable[[Json], object]) -> str | None:
    """Read a pull to its end, telling how far it is not too often; give the reason if it failed."""
    progress, told = PullProgress(), float("-inf")
    for event in events:
        if (failure := failure_of(event)) is not None:
            return failure
        progress.feed(event)
        if (now := time.monotonic()) - told >= _PROGRESS_SECONDS:
            told = now
            tell(progress.numbers())
    tell(progress.numbers())
    return None


def _without_secrets(message: str, auth: Json | None) -> str:
    for secret in (auth or {}).values():
        if isinstance(secret, str) and secret:
            message = message.replace(secret, "***")
    return message


def _exception_of(done: asyncio.Future[None]) -> BaseException | None:
    return None if done.cancelled() else done.exception()


def _system_error(error: BaseException | None) -> OSError | None:
    """Find what the operating system said, under the wrappings of two libraries."""
    found = None
    while error is not None:
        if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
            found = error
        error = error.__cause__ or error.__context__
    return found


def _advice(cause: OSError | None, url: str) -> str:
    path = Path(urlsplit(url).path)
    match cause:
        case FileNotFoundError():
            return f'there is no such socket; mount it, in Compose with `volumes: ["{path}:{path}"]`'
        case PermissionError():
            try:
                group = path.stat().st_gid
            except OSError:
                return "permission denied; the folder of the socket must be open to Sidecar's user"
            return f'permission denied; its group is {group}, in Compose say `group_add: ["{group}"]`'
        case ConnectionRefusedError():
            return "nobody listens; start the engine, and Sidecar after it if the mounted socket was made anew"
        case TimeoutError():
            return "it did not answer in time"
        case None:
            return "the connection was cut"
        case _:
            return cause.strerror or str(cause)
