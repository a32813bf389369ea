"""Where settings are written: the environment, a `.env`, a YAML file, and files that hold one secret each.

The only module that reads the environment. It knows no setting and judges no value: `settings_model.py` does. It
imports nothing slow, so that a command which needs one value (`sidecar healthcheck`) starts at once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PREFIX = "SIDECAR_"
ENVIRONMENT = "environment"
DOTENV = ".env"
DEFAULT = "default"
# Variables with our prefix that are no settings: the YAML file's path, and the command line's default for --server.
_OTHER = frozenset({"config", "server"})
# What Kubernetes (and Docker's old links) put into the environment beside a service that is called "sidecar".
_SERVICE_LINK = re.compile(r"SIDECAR_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")

Path_ = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One value as somebody wrote it.

    Attributes:
        path: of the setting, ``("sources", "hub", "token")``.
        key: the name as written, for messages.
        origin: ``environment``, ``.env`` or a file.
    """

    path: Path_
    key: str
    value: object
    origin: str


@dataclass(slots=True, kw_only=True)
class Configuration:
    """Everything that was written, what counts first, and what could not be read (one line a problem).

    Attributes:
        places: what other programs' variables and the usual folders say, which counts last.
        variables: everything in the environment and in `.env`, for those that honour names of others.
    """

    written: list[Written] = field(default_factory=list)
    places: list[Written] = field(default_factory=list)
    variables: Mapping[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def effective(self, *, only: Collection[str], empty_counts: Collection[str] = ()) -> dict[Path_, Written]:
        """Give the value that counts for each path.

        Args:
            only: the first parts of paths that matter.
            empty_counts: last parts of paths for which an empty text is a value; else it is as if not written.
        """
        chosen: dict[Path_, Written] = {}
        for entry in (*self.written, *self.places):
            if entry.path[0] not in only or (entry.value == "" and entry.path[-1] not in empty_counts):
                continue
            if not any(_overlap(path, entry.path) for path in chosen):
                chosen[entry.path] = entry
        return chosen


def _overlap(one: Path_, other: Path_) -> bool:
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def environment() -> Mapping[str, str]:
    """Give the environment of this process."""
    return os.environ


def read(
    environ: Mapping[str, str], cwd: Path, *, secrets: Collection[str], objects: Mapping[str, str]
) -> Configuration:
    """Read all places; the environment counts before `.env`, and that before the YAML file.

    Args:
        secrets: last parts of paths whose value may also stand in a file (``token_file``).
        objects: settings whose text is a JSON object, with an example of each.
    """
    found = Configuration()
    dotenv = _read_dotenv(cwd / DOTENV, found.problems)
    layers = [_variables(environ, ENVIRONMENT), _variables(dotenv, DOTENV)]
    if path := environ.get(PREFIX + "CONFIG") or dotenv.get(PREFIX + "CONFIG"):
        layers.append(_read_yaml(cwd / path, found.problems))
    for layer in layers:
        whole = [part for entry in layer for part in _opened(entry, objects, found.problems)]
        # Within one place the more detailed name wins: a secret beside the JSON that describes its source.
        whole.sort(key=lambda entry: entry.key.count("__"), reverse=True)
        found.written += _with_files(whole, secrets, found.problems)
    found.places += _standard_places(environ)
    found.variables = {**dotenv, **environ}
    return found


def peek(name: str, environ: Mapping[str, str], cwd: Path) -> str | None:
    """Give one plain setting as text, unjudged; None when it is written nowhere."""
    entry = read(environ, cwd, secrets=(), objects={}).effective(only=(name,)).get((name,))
    return None if entry is None else str(entry.value)


def _variables(variables: Mapping[str, str], origin: str) -> list[Written]:
    """Take the variables that are ours."""
    return [
        Written(path=tuple(name.removeprefix(PREFIX).lower().split("__")), key=name, value=value, origin=origin)
        for name, value in variables.items()
        if name.startswith(PREFIX)
        and name.removeprefix(PREFIX).lower() not in _OTHER
        and not _SERVICE_LINK.fullmatch(name)
        and not (name == PREFIX + "PORT" and value.startswith("tcp://"))
    ]


def _standard_places(environ: Mapping[str, str]) -> Iterator[Written]:
    """Give what other programs' variables and the usual folders say of our settings, which counts last."""
    home = Path(environ.get("HOME") or "/")
    state = Path(environ.get("XDG_STATE_HOME") or "")
    # The XDG specification has relative paths ignored.
    state = (state if state.is_absolute() else home / ".local" / "state") / "sidecar"
    yield Written(path=("state_dir",), key="STATE_DIR", value=str(state), origin=DEFAULT)
    if engine := environ.get("DOCKER_HOST"):
        yield Written(path=("docker_host",), key="DOCKER_HOST", value=engine, origin=ENVIRONMENT)
    folder = environ.get("DOCKER_CONFIG")
    credentials = Path(folder or home / ".docker") / "config.json"
    origin = "DOCKER_CONFIG" if folder else DEFAULT
    yield Written(path=("registry_credentials",), key=origin, value=str(credentials), origin=origin)


def _read_dotenv(path: Path, problems: list[str]) -> dict[str, str]:
    """Read a `.env` literally: a dollar sign in a password is a dollar sign."""
    if not path.is_file():
        return {}
    from dotenv.parser import parse_stream  # noqa: PLC0415 - only where there is such a file

    try:
        with path.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"reading {path}: {_reason(error)}; a readable text of KEY=value lines is accepted")
        return {}
    wrong = [binding.original.line for binding in bindings if binding.error]
    problems += [f"reading {path}: line {line} is not of the form KEY=value" for line in wrong]
    return {binding.key: binding.value or "" for binding in bindings if binding.key is not None}


def _read_yaml(path: Path, problems: list[str]) -> list[Written]:
    import yaml  # noqa: PLC0415 - only where there is such a file

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(
            f"reading {PREFIX}CONFIG={str(path)!r}: {_reason(error)}; the path of a readable YAML file is accepted"
        )
        return []
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" near line {place.line + 1}" if place else ""
        # The library's own message quotes the text around the error, which may hold a secret.
        problems.append(f"reading {path}: it is not valid YAML{line}")
        return []
    if content is None:
        return []
    if not isinstance(content, dict):
        problems.append(f"reading {path}: expected settings as `name: value` lines, got a {type(content).__name__}")
        return []
    return list(_flattened(content, (), str(path)))


def _flattened(mapping: Mapping[object, object], above: Path_, origin: str) -> Iterator[Written]:
    for name, value in mapping.items():
        path = (*above, str(name).lower())
        if isinstance(value, dict) and value:
            yield from _flattened(value, path, origin)
        else:
            yield Written(path=path, key=".".join(path), value=value, origin=origin)


def _opened(entry: Written, objects: Mapping[str, str], problems: list[str]) -> Iterator[Written]:
    """Take the JSON text of a structured setting apart."""
    if len(entry.path) > 1 or entry.path[0] not in objects or not isinstance(entry.value, str) or not entry.value:
        yield entry
        return
    try:
        content = json.loads(entry.value)
    except ValueError as error:
        # The value is not shown: it may hold secrets.
        problems.append(f"{entry.key}: is no JSON ({error}); a JSON object like {objects[entry.path[0]]} is accepted")
        return
    if not isinstance(content, dict):
        example = objects[entry.path[0]]
        problems.append(f"{entry.key}: a JSON object like {example} is accepted, not a {type(content).__name__}")
        return
    for part in _flattened(content, entry.path, entry.origin):
        yield Written(
            path=part.path, key=f"{entry.key}.{'.'.join(part.path[1:])}", value=part.value, origin=part.origin
        )


def _with_files(layer: list[Written], secrets: Collection[str], problems: list[str]) -> Iterator[Written]:
    """Put the content of a secret's file in the place of its path; the secret beside its file is a contradiction."""
    keys = {entry.path: entry.key for entry in layer}
    for entry in layer:
        *above, last = entry.path
        secret = last.removesuffix("_file")
        if secret == last or secret not in secrets:
            yield entry
            continue
        path = (*above, secret)
        if path in keys:
            problems.append(f"{entry.key} and {keys[path]} are both given; one of them is accepted")
            continue
        try:
            text = Path(str(entry.value)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"reading {entry.key}={str(entry.value)!r}: {_reason(error)}; a readable file is accepted")
            continue
        yield Written(path=path, key=entry.key, value=text.rstrip("\r\n"), origin=str(entry.value))


def _reason(error: OSError | UnicodeDecodeError) -> str:
    """Say what is wrong with a file, and nothing of its content."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else "it is no UTF-8 text"
