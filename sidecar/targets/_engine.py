"""The Docker engine's API for asyncio: one method makes one call and decides nothing.

This is the only module that knows the Docker SDK. It uses the SDK's client as a session that speaks HTTP over the
engine's socket, and posts and gives the engine's own JSON: the SDK's typed calls lose the fields that they do not know,
list containers by one inspect for each, hide the errors of a pull, and give up on a stop that takes its time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, Self
from urllib.parse import quote

import docker
import docker.auth
import docker.errors
import requests

from sidecar.errors import Misconfigured, Refused, Transient
from sidecar.targets import _streams, podman
from sidecar.targets._answers import (
    an_array,
    an_object,
    content,
    nothing,
    object_and_date,
    path_stat,
)
from sidecar.targets._session import NameConflict, Session, filtered
from sidecar.targets._wire import EngineError, Silent, Wire
from sidecar.targets.pull import is_refusal, without_secrets

__all__ = ["DEFAULT_URL", "Engine", "EngineError", "Json", "NameConflict", "Silent"]

Json = dict[str, Any]

DEFAULT_URL: Final = "unix:///var/run/docker.sock"
LAST_API_WITH_MAC: Final = (1, 51)

_REMOVAL_SECONDS = 30
_PRUNE_SECONDS = 600
_SIZE_SECONDS = 600


class Engine:
    """One engine. It may be restarted, or replaced by a newer one, and is used on as it is.

    Every method may raise ``Unreachable``, and ``EngineError`` where the engine says no.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @classmethod
    async def connect(cls, url: str | None = None, *, timeout_seconds: float = 60) -> Self:
        """Find out which API the engine speaks, and on which platform.

        Raises:
            Unreachable: it does not answer; the message says what to do.
            Misconfigured: it is too old, or the address is none.
        """
        url = url or DEFAULT_URL
        session = Session(Wire(url, new_client=lambda: _client(url), timeout_seconds=timeout_seconds))
        try:
            await session.introduce()
        except BaseException:
            session.close()
            raise
        return cls(session)

    @property
    def api_version(self) -> tuple[int, int]:
        """The newest that the engine speaks; with an older one it drops what that did not know."""
        return self._session.api_version

    @property
    def platform(self) -> str:
        """Operating system and architecture of the engine, as images name them: ``linux/amd64``."""
        return self._session.platform

    @property
    def is_podman(self) -> bool:
        """It is Podman behind its Docker-compatible API; what it shows is given in Docker's words."""
        return self._session.is_podman

    async def close(self) -> None:
        """Cut off what streams, and wait for nothing."""
        self._session.close()

    async def ping(self) -> float:
        """Ask whether the engine is there, and notice when it has become another version; give its clock."""
        return await self._session.greet()

    async def version(self) -> Json:
        """Give the engine's version, platform and the APIs it speaks."""
        return await self._session.version()

    async def info(self) -> Json:
        """Give what the engine says of itself and its host."""
        return await self._session.fetch("GET", "/info", use=an_object)

    async def list_containers(self, *, filters: Mapping[str, list[str]] | None = None) -> list[Json]:
        """List containers, stopped ones too, without inspecting each."""
        params = {"all": 1, **filtered(podman.filters(filters) if filters and self.is_podman else filters)}
        return await self._session.fetch("GET", "/containers/json", params=params, use=an_array)

    async def inspect_container(self, ident: str) -> tuple[Json, float] | None:
        """Give a container and the engine's clock as of that answer; None when there is none."""
        try:
            path = f"/containers/{_quoted(ident)}/json"
            container, now = await self._session.fetch("GET", path, use=object_and_date)
            if self.api_version > LAST_API_WITH_MAC:
                container["Config"]["MacAddress"] = await self._mac_address(path)
            native = await self._session.ask_podman(path)
        except EngineError as error:
            if error.is_missing:
                return None
            raise
        return container if native is None else podman.container_of(container, native), now

    async def written_bytes(self, ident: str) -> int:
        """Give the size of what a container wrote outside of its volumes; a large layer takes its time."""
        path, params = f"/containers/{_quoted(ident)}/json", {"size": 1}
        found: Json = await self._session.fetch("GET", path, use=an_object, params=params, read_seconds=_SIZE_SECONDS)
        return int(found.get("SizeRw") or 0)

    async def changes(self, ident: str) -> list[Json]:
        """List what differs between a container's files and its image's."""
        path = f"/containers/{_quoted(ident)}/changes"
        return await self._session.fetch("GET", path, use=an_array, read_seconds=_SIZE_SECONDS) or []

    async def stat_file(self, ident: str, path: str) -> Json | None:
        """Give name, size, mode and time of change of a file in a container; None when there is none."""
        try:
            return await self._session.fetch("HEAD", _archive(ident), use=path_stat, params={"path": path})
        except EngineError as error:
            if error.status == requests.codes.not_found:  # the answer to a HEAD says no more
                return None
            raise

    async def get_archive(self, ident: str, path: str) -> bytes:
        """Give a file of a container, in a tar archive."""
        return await self._session.fetch("GET", _archive(ident), use=content, params={"path": path})

    async def put_archive(self, ident: str, archive: bytes) -> None:
        """Unpack a tar archive in a container, with the owners that it names."""
        await self._session.fetch("PUT", _archive(ident), use=nothing, params={"path": "/"}, data=archive)

    async def inspect_image(self, ident: str) -> Json | None:
        """Give an image; None when there is none."""
        try:
            path = f"/images/{_quoted(ident)}/json"
            image = await self._session.fetch("GET", path, use=an_object)
            native = await self._session.ask_podman(path)
        except EngineError as error:
            if error.is_missing:
                return None
            raise
        return image if native is None else podman.image_of(image, native)

    async def create_container(self, body: Json, *, name: str, platform: str | None) -> str:
        """Create a container from a raw request and give its id.

        Raises:
            NameConflict: the name is taken.
        """
        params = {"name": name, "platform": platform}
        created: Json = await self._session.name("/containers/create", params=params, json=body, use=an_object)
        return str(created["Id"])

    async def has_network(self, name: str) -> bool:
        """Say whether there is a network of this name or id."""
        try:
            await self._session.fetch("GET", f"/networks/{_quoted(name)}", use=nothing)
        except EngineError as error:
            if error.is_missing:
                return False
            raise
        return True

    async def connect_network(self, network: str, container: str, endpoint: Json) -> None:
        """Connect a container to a network."""
        body = {"Container": container, "EndpointConfig": endpoint}
        await self._session.act("POST", f"/networks/{_quoted(network)}/connect", json=body)

    async def disconnect_network(self, network: str, container: str) -> None:
        """Take a container off a network; one that is not on it is left alone."""
        try:
            await self._session.act("POST", f"/networks/{_quoted(network)}/disconnect", json={"Container": container})
        except EngineError as error:
            if "is not connected to" not in str(error):
                raise

    async def start(self, ident: str) -> None:
        """Start a container; one that runs already is left alone."""
        await self._session.act("POST", f"/containers/{_quoted(ident)}/start")

    async def stop(self, ident: str, *, grace_seconds: int) -> None:
        """Stop a container, killing it after the grace; one that is stopped already is left alone.

        Raises:
            Transient: it still runs well after the grace; the engine goes on stopping it.
        """
        await self._session.act_patiently(f"/containers/{_quoted(ident)}/stop", grace_seconds=grace_seconds)

    async def rename(self, ident: str, name: str) -> None:
        """Give a container another name.

        Raises:
            NameConflict: the name is taken.
        """
        await self._session.name(f"/containers/{_quoted(ident)}/rename", params={"name": name}, use=nothing)

    async def set_restart_policy(self, ident: str, policy: Json) -> None:
        """Change a container's restart policy."""
        await self._session.act("POST", f"/containers/{_quoted(ident)}/update", json={"RestartPolicy": policy})

    async def pause(self, ident: str) -> None:
        """Freeze a container."""
        await self._session.act("POST", f"/containers/{_quoted(ident)}/pause")

    async def unpause(self, ident: str) -> None:
        """Let a frozen container go on."""
        await self._session.act("POST", f"/containers/{_quoted(ident)}/unpause")

    async def remove_container(self, ident: str, *, volumes: bool, force: bool = False) -> None:
        """Remove a container, with its anonymous volumes if told; what is gone is left alone, and waited for if going.

        Raises:
            Transient: it is still going after a while.
        """
        params = {"v": int(volumes), "force": int(force)}
        try:
            await self._session.act("DELETE", f"/containers/{_quoted(ident)}", params=params)
        except EngineError as error:
            if "already in progress" in str(error):
                await self._await_removal(ident)
            elif not error.is_missing:
                raise

    async def remove_volume(self, name: str) -> bool:
        """Remove a volume; say no when a container has it, or it is not there."""
        try:
            await self._session.act("DELETE", f"/volumes/{_quoted(name)}")
        except EngineError as error:
            if error.is_missing or error.status == requests.codes.conflict:
                return False
            raise
        return True

    async def tag(self, image: str, *, repository: str, tag: str) -> None:
        """Let a tag name an image."""
        await self._session.act("POST", f"/images/{_quoted(image)}/tag", params={"repo": repository, "tag": tag})

    async def remove_image(self, ident: str) -> bool:
        """Remove an image; say no when it is in use, has several names, or is not there."""
        try:
            await self._session.act("DELETE", f"/images/{_quoted(ident)}")
        except EngineError as error:
            if error.is_missing or error.status == requests.codes.conflict:
                return False
            raise
        return True

    async def prune_images(self) -> Json:
        """Remove every image that has no tag and is not used; one pulled by its digest has none."""
        return await self._prune("/images/prune", {"dangling": ["true"]})

    async def prune_system(self) -> Json:
        """Do what ``docker system prune --force`` does: remove what is stopped, unused or without a tag."""
        answers = [
            await self._prune("/containers/prune"),
            await self._prune("/networks/prune"),
            await self.prune_images(),
            await self._prune("/build/prune", is_everywhere=False),
        ]
        removed = {name: value for answer in answers for name, value in answer.items()}
        return removed | {"SpaceReclaimed": sum(answer.get("SpaceReclaimed") or 0 for answer in answers)}

    async def logs(self, ident: str, *, tail: int) -> str:
        """Give the last lines of a container's output, and of these the last 64 KiB."""
        return await _streams.logs(self._session, f"/containers/{_quoted(ident)}/logs", tail=tail)

    async def create_exec(self, ident: str, command: Sequence[str], *, env: Mapping[str, str]) -> str:
        """Prepare a command in a running container and give its id."""
        body = {
            "Cmd": list(command),
            "Env": [f"{name}={value}" for name, value in env.items()],
            "AttachStdout": True,
            "AttachStderr": True,
        }
        path = f"/containers/{_quoted(ident)}/exec"
        return str((await self._session.fetch("POST", path, json=body, use=an_object))["Id"])

    async def start_exec(self, ident: str, *, timeout_seconds: float | None) -> str:
        """Run a prepared command to its end and give the last of its output.

        Raises:
            TimeoutError: it still runs; nothing can end it from here.
        """
        path = f"/exec/{_quoted(ident)}/start"
        return await _streams.output_of(self._session, path, timeout_seconds=timeout_seconds)

    async def inspect_exec(self, ident: str) -> Json:
        """Give whether a command still runs, and its exit code."""
        return await self._session.fetch("GET", f"/exec/{_quoted(ident)}/json", use=an_object)

    async def restart(self, ident: str, *, grace_seconds: int) -> None:
        """Stop a container, killing it after the grace, and start it again.

        Raises:
            Transient: it takes much longer than the grace; the engine goes on with it.
        """
        await self._session.act_patiently(f"/containers/{_quoted(ident)}/restart", grace_seconds=grace_seconds)

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
        header = docker.auth.encode_header(auth).decode() if auth else None
        pulled = _streams.pull(
            self._session, repository, digest, platform=platform, auth_header=header, progress=progress
        )
        if (failure := await pulled) is not None:
            message = f"pulling {repository}@{digest}: {without_secrets(failure, auth or {})}"
            raise Refused(message) if is_refusal(failure) else Transient(message)

    def events(self) -> AsyncIterator[Json]:
        """Give what happens to containers, as it happens; closed, it ends in the engine too.

        Raises:
            Unreachable: the connection is lost; what happens until the next one is not heard of.
        """
        return _streams.events(self._session)

    async def _mac_address(self, path: str) -> str:
        """Ask in the last version that tells which address the user wanted; later ones hide it."""
        try:
            older = await self._session.fetch("GET", path, use=an_object, version=LAST_API_WITH_MAC)
        except EngineError as error:
            if error.status == requests.codes.bad_request:  # an engine that no longer speaks it
                return ""
            raise
        return str(older["Config"].get("MacAddress") or "")

    async def _await_removal(self, ident: str) -> None:
        path, params = f"/containers/{_quoted(ident)}/wait", {"condition": "removed"}
        try:
            await self._session.act("POST", path, params=params, read_seconds=_REMOVAL_SECONDS)
        except Silent as error:
            raise Transient(str(error)) from error
        except EngineError as error:
            if not error.is_missing:
                raise

    async def _prune(
        self, path: str, filters: Mapping[str, list[str]] | None = None, *, is_everywhere: bool = True
    ) -> Json:
        request: Json = {"params": filtered(filters), "read_seconds": _PRUNE_SECONDS}
        try:
            return await self._session.fetch("POST", path, use=an_object, **request)
        except EngineError as error:
            if error.status == requests.codes.not_found and not is_everywhere:  # Podman keeps no builds
                return {}
            raise


def _client(url: str) -> docker.APIClient:
    try:
        # The version is named so that the constructor asks for none; each call here names its own.
        client = docker.APIClient(base_url=url, version="1.41")
    except docker.errors.DockerException as error:
        message = f"using the engine at {url!r}: {error}"
        raise Misconfigured(message) from error
    client.trust_env = False  # no web proxy stands before an engine
    return client


def _quoted(name: str) -> str:
    """Write a name or id as a part of a path; without one the path would be another call's."""
    if not name:
        message = "asking the engine for a container or an image: no name is given"
        raise EngineError(message, status=requests.codes.not_found, is_missing=True)
    return quote(name, safe="/:@")


def _archive(ident: str) -> str:
    return f"/containers/{_quoted(ident)}/archive"
