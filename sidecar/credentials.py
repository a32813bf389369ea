"""Finds what lets us into a registry: settings first, then Docker's own ``config.json`` and its credential helpers.

It asks no registry and keeps nothing but the parsed file. No message holds anything out of the file or of a helper.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.core.image import ImageRef
from sidecar.errors import Refused, Transient
from sidecar.oci.credential import Credential, server_address

__all__ = ["Credential", "Credentials"]

_HELPER_SECONDS = 10.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+")
# What every helper says, by the library they share, of what it does not have; the rest of the sentence differs.
_NOT_FOUND = b"credentials not found"
# What a key of config.json may have behind its host. Any other path is a namespace, whose credentials are for it alone,
# or a token that `docker login` keeps for itself.
_PATHS = frozenset({"", "v1", "v2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Config:
    """What counts of a ``config.json``. The secrets in it are not shown."""

    auths: Mapping[str, object] = field(default_factory=dict, repr=False)
    store: str = ""
    helpers: Mapping[str, object] = field(default_factory=dict)


class Credentials:
    """Gives the credential of a registry, as it is configured now.

    Args:
        config_file: Docker's ``config.json``; it need not exist, and is read again when it changes.
        explicit: user name and password by registry, which win over the file.
    """

    def __init__(
        self,
        *,
        config_file: Path | None,
        explicit: Mapping[str, tuple[str, str]],
        helper_seconds: float = _HELPER_SECONDS,
    ) -> None:
        self._file = config_file
        self._explicit = {_registry(key) or key: pair for key, pair in explicit.items()}
        self._helper_seconds = helper_seconds
        self._read_as: tuple[int, int, int] | None = None
        self._config = _Config()

    async def find(self, registry: str) -> Credential | None:
        """Give the credential of a registry; None where none is configured.

        Raises:
            Refused: the file cannot be read, or names a helper that is not there.
            Transient: a helper failed.
        """
        if registry in self._explicit:
            username, password = self._explicit[registry]
            return Credential(registry=registry, username=username, password=password)
        config = self._current()
        helper = next(_matching(config.helpers, registry), config.store)
        if helper and (credential := await self._ask_helper(helper, registry)) is not None:
            return credential
        for entry in _matching(config.auths, registry):
            if (credential := self._read_entry(entry, registry)) is not None:
                return credential
        return None

    def _current(self) -> _Config:
        if self._file is None:
            return self._config
        try:
            now = self._file.stat()
            read_as = (now.st_mtime_ns, now.st_size, now.st_ino)
            if read_as != self._read_as:
                self._config = _parse(self._file.read_bytes())
                self._read_as = read_as
        except FileNotFoundError:
            self._config, self._read_as = _Config(), None
        except OSError as error:
            raise self._unreadable(error.strerror or type(error).__name__) from None
        except ValueError as error:
            raise self._unreadable(str(error)) from None
        return self._config

    def _read_entry(self, entry: object, registry: str) -> Credential | None:
        match entry:
            case {"identitytoken": str(token)} if token:
                return Credential(registry=registry, identity_token=token)
            case {"auth": str(auth)} if auth:
                with suppress(ValueError):
                    username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
                    if colon:
                        return Credential(registry=registry, username=username, password=password.strip("\0"))
                msg = f"`auth` of {registry} is not the base64 of user:password"
                raise self._unreadable(msg)
            case {"username": str(username), "password": str(password)} if username:
                return Credential(registry=registry, username=username, password=password)
            case _:
                return None

    def _unreadable(self, reason: str) -> Refused:
        return Refused(f"reading registry credentials in {str(self._file)!r}: {reason}")

    async def _ask_helper(self, name: object, registry: str) -> Credential | None:
        if not isinstance(name, str) or not _HELPER_NAME.fullmatch(name):
            msg = f"the credential helper of {registry} has a name with other than letters, digits, dots, _ and -"
            raise self._unreadable(msg)
        program = f"docker-credential-{name}"
        address = server_address(registry)
        doing = f"asking {program} for the credentials of {registry}"
        status, output = await self._run(program, address, doing=doing)
        if status != 0 and _NOT_FOUND in output.lower():
            return None
        if status != 0:
            msg = f"{doing}: it ended with status {status}; {_by_hand(program, address)}"
            raise Transient(msg)
        try:
            answer = json.loads(output)
        except (ValueError, RecursionError):
            answer = None
        match answer:
            case {"Username": "<token>", "Secret": str(secret)}:
                return Credential(registry=registry, identity_token=secret)
            case {"Username": str(username), "Secret": str(secret)}:
                return Credential(registry=registry, username=username, password=secret)
            case _:
                pass
        msg = f"{doing}: it answered something else; {_by_hand(program, address)}"
        raise Transient(msg)

    async def _run(self, program: str, address: str, *, doing: str) -> tuple[int, bytes]:
        """Run a helper with an address on its input; give its status and output."""
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        try:
            # A session of its own, so that what it starts itself can be ended with it.
            process = await asyncio.create_subprocess_exec(
                program, "get", stdin=pipe, stdout=pipe, stderr=null, start_new_session=True
            )
        except OSError as error:
            msg = (
                f"{doing}, the helper that {str(self._file)!r} names: {error.strerror}; "
                f"install it where Sidecar runs, or put the credentials into the file without a helper"
            )
            raise Refused(msg) from None
        output: bytes | None = None
        try:
            async with asyncio.timeout(self._helper_seconds):
                output, _ = await process.communicate(address.encode())
        except TimeoutError:
            msg = f"{doing}: no answer within {self._helper_seconds:g} seconds; {_by_hand(program, address)}"
            raise Transient(msg) from None
        finally:
            if output is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return await process.wait(), output


def _by_hand(program: str, address: str) -> str:
    return f"try it: echo {address} | {program} get"


def _parse(content: bytes) -> _Config:
    """Read a file's content; the message of an error holds none of it."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        msg = "it is not JSON"
        raise ValueError(msg) from None
    match document:
        case {**fields}:
            auths, helpers = fields.get("auths") or {}, fields.get("credHelpers") or {}
            store = fields.get("credsStore") or ""
            if isinstance(auths, dict) and isinstance(helpers, dict) and isinstance(store, str):
                return _Config(auths=auths, store=store, helpers=helpers)
        case _:
            pass
    msg = "it is not what Docker writes: an object with `auths`, `credsStore` or `credHelpers`"
    raise ValueError(msg)


def _matching(entries: Mapping[str, object], registry: str) -> Iterator[object]:
    """Give the entries for a registry: first that under the name Docker uses now, then those under older ones."""
    current = server_address(registry)
    if current in entries:
        yield entries[current]
    for key, entry in entries.items():
        if key != current and _registry(key) == registry:
            yield entry


def _registry(key: str) -> str | None:
    """Read a key of ``config.json`` in any form it ever had: ``host``, ``https://host``, ``host/v1/``, with a port."""
    _, scheme, rest = key.rpartition("://")
    host, _, path = rest.partition("/")
    if path.rstrip("/") not in _PATHS or (scheme and not key.startswith(("http://", "https://"))):
        return None
    try:
        ref = ImageRef.parse(f"{host}/any/name")
    except ValueError:
        return None
    return ref.registry if ref.repository == "any/name" else None
