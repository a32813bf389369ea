"""What Watchtower's variables say of our settings, where ``WATCHTOWER_COMPAT`` asks for it; judges no value of ours.

Whatever is set and not honoured as it stands is a remark, for `sidecar check`, the doctor and the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from sidecar.core.watchtower_names import ENVIRONMENT, Fate, Remark, fate_of, is_off, names_in, parse_bool
from sidecar.settings import PREFIX, Path_, Written
from sidecar.tokens import SHORTEST

_THEIRS = "WATCHTOWER_"
# Theirs that say yes or no, with a setting of ours that is called alike.
_FLAGS = (
    "HTTP_API_METRICS",
    "HTTP_API_UPDATE",
    "INCLUDE_STOPPED",
    "LABEL_TAKE_PRECEDENCE",
    "LIFECYCLE_HOOKS",
    "MONITOR_ONLY",
    "NO_PULL",
    "NO_RESTART",
)
_OTHER_FLAGS = ("CLEANUP", "DEBUG", "HTTP_API_PERIODIC_POLLS", "LABEL_ENABLE", "TRACE")
_LEVELS = {"panic": "error", "fatal": "error", "warn": "warning", "trace": "debug"}
_FORMATS = {"pretty": "console"}
# Where Watchtower looks for registry credentials when nobody says where they are.
CREDENTIALS = Path("/config.json")

Variables = Mapping[str, str]


def settings_of(variables: Variables) -> Iterator[Written]:
    """Give what Watchtower's variables say of our settings; ours count before them."""
    set_ = {name: value for name, value in variables.items() if value}
    for name in _FLAGS:
        if (said := parse_bool(set_.get(_THEIRS + name))) is not None:
            yield _written(f"watchtower_{name.lower()}", said, _THEIRS + name)
    yield from _targets(set_)
    yield from _looks(set_)
    yield from _log(set_)
    yield from _registry(set_)
    if token := set_.get("WATCHTOWER_HTTP_API_TOKEN"):
        yield _written("watchtower_http_api_token", _content(token), "WATCHTOWER_HTTP_API_TOKEN")


def remarks_on(variables: Variables) -> Iterator[Remark]:
    """Say of everything that is set and not honoured as it stands why, and what to do instead."""
    set_ = {name: value for name, value in variables.items() if value}
    for name, value in sorted(set_.items()):
        if (known := fate_of(name)) is None:
            if name.startswith(_THEIRS):
                close = get_close_matches(name, ENVIRONMENT, n=1)
                yield Remark(name, "is not known" + (f"; did you mean {close[0]}?" if close else " and not read"))
        elif known.fate is not Fate.HONOURED and not is_off(value):
            yield Remark(name, known.words)
        elif name.removeprefix(_THEIRS) in {*_FLAGS, *_OTHER_FLAGS} and parse_bool(value) is None:
            yield Remark(name, f"{value!r} is neither true nor false, and counts as not set")
    yield from _remarks_on_credentials(set_)


def is_foreign(variable: str) -> bool:
    """Say whether a variable can only have been meant for Watchtower."""
    return variable.startswith(_THEIRS) and fate_of(variable) is not None


def _remarks_on_credentials(set_: Variables) -> Iterator[Remark]:
    names = ("REPO_USER", "REPO_PASS")
    given = [name for name in names if name in set_]
    if len(given) == len(names):
        says = "counts for Docker Hub only; accounts of other registries stand in a config.json (DOCKER_CONFIG)"
        yield Remark("REPO_USER", says)
    elif given:
        yield Remark(given[0], "counts only together with " + next(name for name in names if name not in set_))
    token, is_asked = set_.get("WATCHTOWER_HTTP_API_TOKEN"), _is_on(set_, "HTTP_API_UPDATE")
    if is_asked and not token:
        yield Remark("WATCHTOWER_HTTP_API_UPDATE", "without WATCHTOWER_HTTP_API_TOKEN only the admin token is accepted")
    if token and len(_content(token)) < SHORTEST:
        says = f"is short enough to be guessed; {SHORTEST} characters are no more work for a program"
        yield Remark("WATCHTOWER_HTTP_API_TOKEN", says)


def _targets(set_: Variables) -> Iterator[Written]:
    is_opt_in = _is_on(set_, "LABEL_ENABLE")
    origin = "WATCHTOWER_LABEL_ENABLE" if is_opt_in else PREFIX + "WATCHTOWER_COMPAT"
    yield _written("default_enable", not is_opt_in, origin)
    if disabled := set_.get("WATCHTOWER_DISABLE_CONTAINERS"):
        yield _written("watchtower_disable_containers", names_in(disabled), "WATCHTOWER_DISABLE_CONTAINERS")
    if scope := set_.get("WATCHTOWER_SCOPE"):
        yield _written("scope", scope, "WATCHTOWER_SCOPE")
    cleanup = parse_bool(set_.get("WATCHTOWER_CLEANUP"))
    if cleanup is not None:
        yield _written("prune", "replaced" if cleanup else "none", "WATCHTOWER_CLEANUP")


def _looks(set_: Variables) -> Iterator[Written]:
    """Say how often everything is looked at; Watchtower does not poll where it can be asked, unless told to."""
    if _is_on(set_, "HTTP_API_UPDATE") and not _is_on(set_, "HTTP_API_PERIODIC_POLLS"):
        yield _written("resync_seconds", 0, "WATCHTOWER_HTTP_API_UPDATE")
    elif interval := set_.get("WATCHTOWER_POLL_INTERVAL"):
        yield _written("resync_seconds", interval, "WATCHTOWER_POLL_INTERVAL")


def _log(set_: Variables) -> Iterator[Written]:
    for name in ("DEBUG", "TRACE"):
        if _is_on(set_, name):
            yield _written("log_level", "debug", _THEIRS + name)
    if level := set_.get("WATCHTOWER_LOG_LEVEL"):
        yield _written("log_level", _LEVELS.get(level.lower(), level), "WATCHTOWER_LOG_LEVEL")
    style = set_.get("WATCHTOWER_LOG_FORMAT", "auto")
    if style.lower() != "auto":
        yield _written("log_format", _FORMATS.get(style.lower(), style), "WATCHTOWER_LOG_FORMAT")


def _registry(set_: Variables) -> Iterator[Written]:
    user, password = set_.get("REPO_USER"), set_.get("REPO_PASS")
    if user and password:
        yield _written("registry_username", user, "REPO_USER")
        yield _written("registry_password", password, "REPO_PASS")
    if "DOCKER_CONFIG" not in set_ and CREDENTIALS.is_file():
        yield _written("registry_credentials", str(CREDENTIALS), str(CREDENTIALS))


def _is_on(set_: Variables, name: str) -> bool:
    return parse_bool(set_.get(_THEIRS + name)) is True


def _content(token: str) -> str:
    """Give a secret that may stand in a file, which is then named in its place."""
    try:
        return Path(token).read_text(encoding="utf-8").rstrip("\r\n") if Path(token).is_file() else token
    except (OSError, UnicodeDecodeError):
        return token


def _written(name: str, value: object, origin: str) -> Written:
    path: Path_ = (name,)
    return Written(path=path, key=origin, value=value, origin=origin)
