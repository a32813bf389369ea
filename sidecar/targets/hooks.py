"""Runs the commands that a user wants run around an update, in the container itself; decides nothing.

They are run at least once: a process that is killed while one runs, or before that is on record, runs it again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from sidecar.core.rollout import Rollout
from sidecar.core.target import State
from sidecar.errors import Postponed, Transient
from sidecar.ports import Events
from sidecar.targets._engine import Engine, EngineError
from sidecar.targets.calls import PRE_UPDATE
from sidecar.targets.containers import state_of

NOT_NOW: Final = 75
"""The exit code by which a hook before an update says that it is not the time (EX_TEMPFAIL of sysexits.h)."""

_ATTEMPTS, _ATTEMPT_SECONDS = 50, 0.1
# Between tries where the engine had an error of its own, not the command.
_PAUSES_SECONDS = (1.0, 4.0)
_NOT_RUN = -1
_OUTPUT_CHARACTERS = 2000
_LINE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a command ended.

    Attributes:
        code: None where it did not end in time; -1 where the engine could not run it, or knows nothing of its end.
    """

    code: int | None
    output: str


async def run_hook(engine: Engine, events: Events, rollout: Rollout, hook: str, container_id: str) -> None:
    """Run a hook and tell how it ended.

    Raises:
        Postponed: a pre-update hook says that it is not the time.
        Transient: a pre-update hook failed, or its container is paused; so nothing else is done either.
    """
    about: dict[str, Any] = {"target": rollout.target_id, "rollout_id": rollout.id, "hook": hook}
    inspected = await engine.inspect_container(container_id)
    state = state_of(inspected[0]) if inspected is not None else State.MISSING
    if state is State.PAUSED and hook == PRE_UPDATE:
        msg = f"running the {hook} hook of {rollout.target_id}: its container is paused, and nothing can run in it"
        raise Transient(msg)
    if state is not State.RUNNING:
        events.publish("hook.skipped", **about, reason=f"its container is {state}")
        return
    asked: Mapping[str, Any] = (rollout.plan or {})["hooks"][hook]
    began = time.monotonic()
    ended = await _run(engine, container_id, asked, _environment(rollout, hook))
    about |= {"duration_seconds": round(time.monotonic() - began, 3), "output": ended.output[-_OUTPUT_CHARACTERS:]}
    if ended.code == 0:
        events.publish("hook.succeeded", **about)
        return
    reason = _reason(ended, asked)
    is_postponed = hook == PRE_UPDATE and ended.code == NOT_NOW
    about |= {"reason": reason} | ({} if ended.code in (None, _NOT_RUN) else {"exit_code": ended.code})
    events.publish("hook.postponed" if is_postponed else "hook.failed", **about)
    if hook == PRE_UPDATE:
        msg = f"the {hook} hook of {rollout.target_id} {reason}"
        raise Postponed(msg) if is_postponed else Transient(msg)


async def _run(engine: Engine, container_id: str, asked: Mapping[str, Any], env: Mapping[str, str]) -> _Ended:
    try:
        ident, output = await _exec(engine, container_id, asked, env)
    except TimeoutError:
        return _Ended(None, "")
    except EngineError as error:
        return _Ended(_NOT_RUN, str(error))  # there is no shell, for example
    try:
        for _ in range(_ATTEMPTS):
            # The output ends a moment before the engine knows how the command did.
            if not (state := await engine.inspect_exec(ident))["Running"]:
                return _Ended(int(state["ExitCode"]), output)
            await asyncio.sleep(_ATTEMPT_SECONDS)
    except EngineError as error:
        if not error.is_missing:
            raise
        return _Ended(_NOT_RUN, str(error))  # it ended its own container, for example, and the engine forgot it
    return _Ended(None, output)


async def _exec(engine: Engine, container_id: str, asked: Mapping[str, Any], env: Mapping[str, str]) -> tuple[str, str]:
    """Run a command and give its id and its output; what fails by no fault of the command is tried a few times."""
    for pause in _PAUSES_SECONDS:
        try:
            return await _exec_once(engine, container_id, asked, env)
        except EngineError as error:
            if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
        await asyncio.sleep(pause)
    return await _exec_once(engine, container_id, asked, env)


async def _exec_once(
    engine: Engine, container_id: str, asked: Mapping[str, Any], env: Mapping[str, str]
) -> tuple[str, str]:
    ident = await engine.create_exec(container_id, ["/bin/sh", "-c", asked["command"]], env=env)
    return ident, await engine.start_exec(ident, timeout_seconds=asked["timeout"])


def _reason(ended: _Ended, asked: Mapping[str, Any]) -> str:
    lines = ended.output.strip().splitlines()
    words = f": {lines[-1][:_LINE_CHARACTERS]}" if lines else ""
    match ended.code:
        case None if asked["timeout"] is not None:
            return f"did not end within {asked['timeout']:g} seconds, and may still run in its container"
        case None:
            return "goes on in its container though its output ended"
        case code if code == _NOT_RUN:
            return f"could not be run{words}"
        case code if code == NOT_NOW:
            return f"says that it is not the time (exit code {code}){words}"
        case code:
            return f"failed with exit code {code}{words}"


def _environment(rollout: Rollout, hook: str) -> Mapping[str, str]:
    """Tell a hook what it is run for."""
    return {
        "SIDECAR_HOOK": hook,
        "SIDECAR_TARGET": rollout.target_id,
        "SIDECAR_IMAGE": rollout.ref,
        "SIDECAR_FROM_DIGEST": rollout.from_.digest or "",
        "SIDECAR_TO_DIGEST": rollout.to.digest or "",
    }
