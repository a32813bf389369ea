"""The commands that need no daemon: check, token, url."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from pydantic import BaseModel, SecretStr

from sidecar.accepted import HeaderSource
from sidecar.cli.output import hint, say, say_json, say_table
from sidecar.errors import Misconfigured
from sidecar.settings import PREFIX
from sidecar.settings_model import Loaded, Settings, load
from sidecar.tokens import ADMIN, WEBHOOK, keep_token, rotate_token

_HOW_TO_PASTE: Mapping[str, str] = {
    "dockerhub": """\
1. Open your repository on https://hub.docker.com, then Webhooks.
2. Name it (sidecar), paste the address, and choose Create.
3. Push an image; `sidecar history` shows what arrived.""",
    "distribution": """\
1. Add this to the registry's configuration, and restart it:
     notifications:
       endpoints:
         - name: sidecar
           url: {url}{headers}
           timeout: 1s
           threshold: 5
           backoff: 5s
           ignore: # what is no push of a tag
             mediatypes: [application/octet-stream]
             actions: [pull, mount, delete]
2. Push an image; `sidecar history` shows what arrived.""",
    "generic": """\
1. Let the end of your build send one request:
     curl -fsS -H 'Content-Type: application/json' -d '{{"image": "me/app:latest"}}'{header} {url}
2. `sidecar history` shows what arrived.""",
}


class Shown(NamedTuple):
    """One setting as it counts."""

    key: str
    value: str
    origin: str


def check(environ: Mapping[str, str], cwd: Path, *, as_json: bool) -> int:
    """Print the configuration as it counts, without its secrets."""
    loaded = load(environ, cwd)
    rows = list(effective(loaded))
    if as_json:
        nothing = {"value": "-", "origin": "-"}
        ignored = [{"key": remark.name, **nothing, "warning": remark.says} for remark in loaded.remarks]
        say_json([*(row._asdict() for row in rows), *ignored])
        return 0
    say_table(("SETTING", "VALUE", "FROM"), rows)
    for remark in loaded.remarks:
        hint(f"warning: {remark}")
    return 0


def effective(loaded: Loaded) -> Iterator[Shown]:
    """Give every setting with its value, masked where it is a secret, and where it was written."""
    yield from _shown(loaded.settings, (), loaded)


def _shown(model: BaseModel, above: tuple[str, ...], loaded: Loaded) -> Iterator[Shown]:
    for name in type(model).model_fields:
        path, value = (*above, name), getattr(model, name)
        if isinstance(value, dict):
            for key, source in value.items():
                yield from _shown(source, (*path, key), loaded)
        else:
            key = PREFIX + "__".join(path).upper()
            yield Shown(key, _text(path, value, loaded.settings), loaded.origins.get(path, "default"))


def _text(path: tuple[str, ...], value: object, settings: Settings) -> str:
    match value:
        case SecretStr():
            return "***"
        case None if path in {("token",), ("admin_token",)}:
            return f"made once, kept in {settings.state_dir / (WEBHOOK if path == ('token',) else ADMIN)}"
        case None if path[0] == "sources" and path[-1] == "token":
            return _instead_of_a_token(settings.sources[path[1]])
        case None if path == ("log_format",):
            return "console on a terminal, json elsewhere"
        case None | "":
            return "-"
        case tuple():
            return ", ".join(map(str, value)) or "-"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _instead_of_a_token(source: BaseModel) -> str:
    has_header = isinstance(source, HeaderSource) and source.authorization is not None
    return "-" if has_header else f"that of {PREFIX}TOKEN"


def token(environ: Mapping[str, str], cwd: Path, *, admin: bool, rotate: bool) -> int:
    """Print the token of webhook addresses or that of the API, or make a new one."""
    loaded = load(environ, cwd)
    name, path = (ADMIN, ("admin_token",)) if admin else (WEBHOOK, ("token",))
    given = loaded.settings.admin_token if admin else loaded.settings.token
    if given is not None and rotate:
        msg = f"rotating the token: {PREFIX}{path[0].upper()} is set ({loaded.origins[path]}); change it there"
        raise Misconfigured(msg)
    if given is not None:
        say(given.get_secret_value())
        return 0
    folder = loaded.settings.state_dir
    say(rotate_token(folder, name) if rotate else keep_token(folder, name))
    if rotate:
        hint("Restart the daemon, which takes it then" + ("." if admin else ", and give senders their new address."))
    return 0


def url(environ: Mapping[str, str], cwd: Path, *, source: str, base: str | None) -> int:
    """Print the address that a sender is given: alone on standard output, what to do with it beside that."""
    settings = load(environ, cwd).settings
    if (described := settings.sources.get(source)) is None:
        msg = f"{source!r} is no source; accepted are {', '.join(settings.sources)}"
        raise Misconfigured(msg)
    base = (base or settings.public_url or "").rstrip("/")
    authorization = described.authorization if isinstance(described, HeaderSource) else None
    path = f"{settings.root_path}/hooks/{source}"
    if authorization is None:
        own = settings.token.get_secret_value() if settings.token else ""
        path += "/" + quote((*described.tokens, own or keep_token(settings.state_dir, WEBHOOK))[0], safe="")
    if base and not base.startswith(("http://", "https://")):
        msg = f"writing the address: {base!r} is no web address; something like https://hooks.example.com is accepted"
        raise Misconfigured(msg)
    if not base:
        msg = (
            "writing the address: where senders reach this host is not known; name it by --base "
            f"https://hooks.example.com or {PREFIX}PUBLIC_URL (a host without a public address needs a tunnel); "
            f"its path is {path}"
        )
        raise Misconfigured(msg)
    say(base + path)
    # The header is a secret of the user's own, which stands in the settings already.
    headers = "\n           headers:\n             Authorization: [<what you set>]" if authorization else ""
    header = " -H 'Authorization: <what you set>'" if authorization else ""
    hint(_HOW_TO_PASTE[described.kind].format(url=base + path, headers=headers, header=header))
    return 0
