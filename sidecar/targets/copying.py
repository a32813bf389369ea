"""Finds what Compose copied into a container, and copies it into the one that takes its place.

Which files those are is decided in ``written``. Their content is read when it is needed, and neither kept nor told:
it may be a secret.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sidecar.errors import Transient
from sidecar.targets._engine import Engine
from sidecar.targets.written import (
    File,
    Written,
    candidates,
    is_whole_second,
    may_have_copies,
    sort_out,
    time_of_copy,
)

Json = dict[str, Any]
_PERMISSIONS = 0o7777  # Engine 20.10 writes the kind of the file beside them
_AT_ONCE = 4  # other targets have to be looked at, too


async def find_copies(engine: Engine, container: Json) -> Written:
    """Look into a container's layer for what Compose copied there."""
    if not may_have_copies(container):
        return Written()
    ident, room = container["Id"], asyncio.Semaphore(_AT_ONCE)

    async def look(path: str, *, is_added: bool) -> File | None:
        async with room:
            return await _file(engine, ident, path, is_added=is_added)

    looks = [look(path, is_added=is_added) for path, is_added in candidates(await engine.changes(ident))]
    files = [file for file in await asyncio.gather(*looks) if file is not None]
    image = await engine.inspect_image(container["Image"]) if files else None
    return sort_out(container, image or {}, files)


async def _file(engine: Engine, ident: str, path: str, *, is_added: bool) -> File | None:
    found = await engine.stat_file(ident, path)
    if found is None:  # it was removed meanwhile
        return None
    return File(
        path=path, is_added=is_added, size_bytes=found["size"], mode=int(found["mode"]), modified=found["mtime"]
    )


async def has_copies(engine: Engine, container: Json, paths: Collection[str]) -> bool:
    """Say whether all files arrived whole: their time is set last, to a whole second."""
    found = await asyncio.gather(*(engine.stat_file(container["Id"], path) for path in paths))
    return all(file is not None and is_whole_second(file["mtime"]) for file in found)


async def copy(engine: Engine, paths: Sequence[str], *, sources: Sequence[str], container: Json) -> int | None:
    """Copy files from the first of some containers that is there into one that was not started yet.

    Give how many bytes they are; None where none of the containers is there any more.
    """
    for source in sources:
        if await engine.inspect_container(source) is not None:
            archives = await asyncio.gather(*(engine.get_archive(source, path) for path in paths))
            files = {path: _only_file(path, archive) for path, archive in zip(paths, archives, strict=True)}
            await engine.put_archive(container["Id"], _joined(files, modified=time_of_copy(container)))
            return sum(file.size for file, _ in files.values())
    return None


def _joined(files: Mapping[str, tuple[tarfile.TarInfo, bytes]], *, modified: int) -> bytes:
    """Put files into one archive, under their whole paths."""
    joined = io.BytesIO()
    with tarfile.open(fileobj=joined, mode="w", format=tarfile.PAX_FORMAT) as output:
        for path, (file, content) in files.items():
            header = tarfile.TarInfo(path.lstrip("/"))
            header.size, header.mode, header.mtime = file.size, file.mode & _PERMISSIONS, modified
            header.uid, header.gid = file.uid, file.gid
            output.addfile(header, io.BytesIO(content))
    return joined.getvalue()


def _only_file(path: str, archive: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """Read the archive that the engine makes of one file."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        member = opened.next()
        file = opened.extractfile(member) if member is not None else None
        if member is None or file is None:
            msg = f"copying {path}: the engine gave no regular file"
            raise Transient(msg)
        return member, file.read()
