"""Tokens that are made once and kept in the state folder, each in a file that only its owner reads."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sidecar.errors import Misconfigured

# The token of webhook addresses, and that of the API.
WEBHOOK = "token"
ADMIN = "admin-token"
# 192 bits, 32 characters that can stand in a path.
_TOKEN_BYTES = 24
# What guards us is at least this long: 16 characters of a generated token hold 96 bits.
SHORTEST = 16
# The one wording of it: in every message, and in what people copy.
LENGTH = f"at least {SHORTEST} characters are accepted (`openssl rand -hex 24` makes one)"


def kept_token(folder: Path, name: str) -> str | None:
    """Give the token that is kept; None when none has been made yet.

    Raises:
        Misconfigured: the file cannot be read, or holds no token.
    """
    path = folder / name
    try:
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"reading the token in {str(path)!r}: {error}"
        raise Misconfigured(msg) from error
    if len(token) < SHORTEST:
        problem = f"it is {len(token)} long; {LENGTH}; without the file one is made"
        msg = f"reading the token in {str(path)!r}: {problem}"
        raise Misconfigured(msg)
    return token


def keep_token(folder: Path, name: str) -> str:
    """Give the token that is kept, and make it first where there is none; of two who do so at once, one makes it.

    Raises:
        Misconfigured: the folder cannot be written, or holds something else under that name.
    """
    if (token := kept_token(folder, name)) is not None:
        return token
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    with _written(folder, name, token) as new:
        # Unlike a rename, a link is refused where the name is taken: nobody's token is overwritten.
        try:
            (folder / name).hardlink_to(new)
        except FileExistsError:
            return kept_token(folder, name) or token
        except OSError:
            # A file system without links.
            new.replace(folder / name)
    return token


def rotate_token(folder: Path, name: str) -> str:
    """Put a new token in the place of the one that is kept; a daemon that runs takes it at its next start.

    Raises:
        Misconfigured: the folder cannot be written.
    """
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    with _written(folder, name, token) as new:
        new.replace(folder / name)
    return token


@contextmanager
def _written(folder: Path, name: str, token: str) -> Iterator[Path]:
    """Write a token to a file of its own, complete and on disk before it gets its name."""
    new = folder / f".{name}.{secrets.token_hex(4)}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(token + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        yield new
    except OSError as error:
        msg = (
            f"keeping a token in {str(folder)!r}: {error.strerror or error}; make the state folder writable for user "
            f"{os.geteuid()}, or name another by SIDECAR_STATE_DIR"
        )
        raise Misconfigured(msg) from error
    finally:
        with suppress(OSError):
            new.unlink()
