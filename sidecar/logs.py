"""How a fact becomes a line: JSON, console or logfmt, with every secret hidden and every value bounded.

A log call never raises and never waits for anything but the write itself. The names of events and their keys stand in
`log_events.py`.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from traceback import format_exception
from types import TracebackType
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import quote

import structlog
from pydantic_core import to_json

from sidecar.log_events import EVENTS, Level

MASK = "***"
LONGEST_TEXT = 2000
LONGEST_TRACEBACK = 8000
_MOST_ITEMS = 100
_DEEPEST = 5
_WRITTEN: tuple[Level, ...] = ("debug", "info", "warning", "error")
# Shorter ones would blot out ordinary words and tell by it what they are.
_SHORTEST_SECRET = 4
_SECRET_KEY = re.compile(r"(^|_)(password|passwd|token|secret|authorization|cookie|credentials?)s?($|_)", re.IGNORECASE)
# What a terminal or a viewer could take for a command; JSON writes the first half of them escaped by itself.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in {0x09, 0x0A, 0x0D}}
_LEVELS = {"exception": "error", "critical": "error", "fatal": "error", "warn": "warning", "notset": "debug"}
_BARE = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f]+")


_Renderer = Callable[[object, str, structlog.typing.EventDict], bytes]


class Listener(Protocol):
    """Whoever hears of facts beside the log."""

    def publish(self, event: str, /, **facts: object) -> None:
        """Hear one fact."""
        ...


class Redaction:
    """What may be written: plain values, bounded, without the secrets that it was told."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: tuple[str, ...] = ()
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Hide these from now on, also as they are written in an address."""
        forms = {
            form for secret in secrets for form in (secret, quote(secret, safe="")) if len(form) >= _SHORTEST_SECRET
        }
        # The longest first: one that holds another is hidden whole.
        self._secrets = tuple(sorted({*self._secrets, *forms}, key=len, reverse=True))

    def facts(self, facts: Mapping[str, object]) -> dict[str, Any]:
        """Make facts plain, and leave out what is not there: no key is null or empty."""
        return {
            key: MASK if _is_secret_key(key) else self.plain(value)
            for key, value in facts.items()
            if value or isinstance(value, int | float)
        }

    def plain(self, value: object, depth: int = 0) -> Any:  # noqa: ANN401 - what JSON can say
        """Make a value plain: text, number, true, false, null, and lists and mappings of these."""
        match value:
            case str():
                return self.text(value)
            case None | bool() | int():
                return value
            case float():
                return value if math.isfinite(value) else str(value)
            case BaseException():
                return self.text(f"{type(value).__name__}: {value}")
            case list() | tuple() | set() | frozenset() if depth < _DEEPEST:
                return [self.plain(item, depth + 1) for item in list(value)[:_MOST_ITEMS]]
            case Mapping() if depth < _DEEPEST:
                return {
                    self.text(str(key)): MASK if _is_secret_key(str(key)) else self.plain(item, depth + 1)
                    for key, item in list(value.items())[:_MOST_ITEMS]
                }
            case bytes():
                return self.text(value[: 2 * LONGEST_TEXT].decode(errors="replace"))
            case _:
                return self.text(str(value))

    def text(self, text: str, longest: int = LONGEST_TEXT) -> str:
        """Hide the secrets in a text and cut it."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        if len(text) > longest:
            text = f"{text[:longest]}... ({len(text)} characters)"
        return text if text.isprintable() else text.translate(_CONTROLS)


@lru_cache(maxsize=512)
def _is_secret_key(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


class FactLog:
    """Writes each fact at its level and passes it on; the `Events` of the line.

    Its lines are those of any logger, made by the same last step and put into the same stream; what it leaves out of a
    logger's way there costs every delivery as much as reading it.
    """

    def __init__(self, redaction: Redaction, *listeners: Listener) -> None:
        self._redaction = redaction
        self._listeners = listeners
        configured = structlog.get_config()
        self._render: _Renderer = configured["processors"][-1]
        self._sink: _Sink = configured["logger_factory"]()
        logger = structlog.get_logger()
        self._written = {level for level in _WRITTEN if logger.is_enabled_for(getattr(logging, level.upper()))}

    def publish(self, event: str, /, **facts: object) -> None:
        """Tell one fact; never blocks and never fails."""
        with suppress(Exception):
            known = EVENTS.get(event)
            level = known.level if known else "info"
            plain = self._plain(facts)
            if level in self._written:
                own = {"timestamp": _now(), "level": level, "event": event}
                # In this order of keys; a fact does not pass for one of ours.
                self._sink.msg(self._render(None, str(level), {**own, **plain, **own}))
            for listener in self._listeners:
                listener.publish(event, **plain)

    def _plain(self, facts: Mapping[str, object]) -> dict[str, Any]:
        try:
            return self._redaction.facts(facts)
        except Exception as error:  # noqa: BLE001 - a value whose text cannot be made must not stop what logs it
            return {"unwritable": type(error).__name__}


def _now() -> str:
    """Write the time, RFC 3339 in UTC."""
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06}Z"


@lru_cache(maxsize=1)  # a busy second has thousands of lines
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class _Line:
    """Turns what was logged into plain values in their order; nothing that is logged makes it fail."""

    def __init__(self, redaction: Redaction, *, with_traceback: bool) -> None:
        self._redaction = redaction
        self._with_traceback = with_traceback

    def __call__(self, _logger: object, method: str, event_dict: structlog.typing.EventDict) -> dict[str, Any]:
        event = event_dict.pop("event", "")
        exc_info = event_dict.pop("exc_info", None)
        line: dict[str, Any] = {
            "timestamp": _now(),
            "level": _LEVELS.get(method, method),
            "event": "",
        }
        try:
            line["event"] = self._redaction.text(str(event))
            line |= self._redaction.facts(event_dict)
            if (error := _error_of(exc_info)) is not None:
                line |= self._failure(error)
        except Exception as error:  # noqa: BLE001 - a value whose text cannot be made must not stop what logs it
            line["unwritable"] = type(error).__name__
        return line

    def _failure(self, error: BaseException) -> dict[str, str]:
        facts = {"error": self._redaction.text(f"{type(error).__name__}: {error}")}
        if self._with_traceback:
            facts["traceback"] = self._redaction.text("".join(format_exception(error)), LONGEST_TRACEBACK)
        return facts


def _error_of(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return cast("tuple[type[BaseException], BaseException, TracebackType]", exc_info)[1]
    return sys.exception() if exc_info else None


def _as_json(_logger: object, _method: str, line: structlog.typing.EventDict) -> bytes:
    with suppress(ValueError):  # half of a pair of surrogates
        return to_json(line)  # in a fifth of the time
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=str).encode(errors="backslashreplace")


def _as_logfmt(_logger: object, _method: str, line: structlog.typing.EventDict) -> bytes:
    pairs = (f"{key}={_logfmt(value)}" for key, value in line.items())
    return " ".join(pairs).encode(errors="backslashreplace")


def _logfmt(value: object) -> str:
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return _logfmt(",".join(value))
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class _AsConsole:
    def __init__(self, *, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=24)

    def __call__(self, logger: structlog.typing.WrappedLogger, method: str, line: structlog.typing.EventDict) -> bytes:
        shown = {key: value if key == "traceback" else _unbroken(value) for key, value in line.items()}
        return str(self._render(logger, method, shown)).encode(errors="backslashreplace")


def _unbroken(value: object) -> object:
    """Keep a text in one line, so that none can look like a line of ours."""
    return value.replace("\n", "\\n").replace("\r", "\\r") if isinstance(value, str) else value


class _Sink:
    """Where lines go; a stream that is full, closed or gone loses lines and nothing else."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def msg(self, line: bytes) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(line + b"\n")
            self._stream.flush()

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


class _Routed(logging.Handler):
    """Brings what libraries log into the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):
            level = "error" if record.levelno >= logging.ERROR else record.levelname.lower()
            log = structlog.get_logger()
            method = getattr(log, level, log.info)
            method("library.logged", logger=record.name, message=record.getMessage(), exc_info=record.exc_info)


def configure_logs(
    *,
    level: str = "info",
    style: str | None = None,
    secrets: Iterable[str] = (),
    stream: BinaryIO | None = None,
) -> Redaction:
    """Set up logging for the process, and give what hides secrets, so that more can be added to it.

    Args:
        style: ``json``, ``console`` or ``logfmt``; None: console on a terminal, JSON otherwise.
        stream: where lines go; standard output by default.
    """
    stream = sys.stdout.buffer if stream is None else stream
    redaction = Redaction(secrets)
    number = getattr(logging, level.upper())
    is_terminal = stream.isatty()
    renderers = {"json": _as_json, "logfmt": _as_logfmt}
    style = style or ("console" if is_terminal else "json")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _Line(redaction, with_traceback=number <= logging.DEBUG),
            renderers.get(style) or _AsConsole(colors=is_terminal),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Sink(stream),
        cache_logger_on_first_use=False,
    )
    _route_libraries(number)
    return redaction


def _route_libraries(number: int) -> None:
    """Let the standard library's loggers write through ours; libraries' debug lines tell nothing of Sidecar."""
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Routed)] + [_Routed()]
    root.setLevel(max(number, logging.WARNING))
    # Its lines hold paths, and those the tokens of senders.
    access = logging.getLogger("aiohttp.access")
    access.handlers, access.propagate, access.disabled = [], False, True


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """Give a logger; its events have names of the table in `log_events.py`."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger())
