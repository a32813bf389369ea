"""The one-shot container that updates the one that Sidecar itself runs in: how it is made, and how it does.

A daemon cannot stop its own container and go on. What it has prepared is carried out by a container of the new image,
which stands beside it and needs nothing of it but the state folder and the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sidecar.core.rollout import Rollout
from sidecar.core.target import State
from sidecar.errors import Postponed
from sidecar.targets._engine import Engine
from sidecar.targets.containers import detail_of, state_of
from sidecar.targets.endpoints import networks
from sidecar.targets.names import HELPER_SUFFIX
from sidecar.targets.spec import CreateRequest

Json = dict[str, Any]

COMMAND: Final = "take-over"
_ROLLOUT_LABEL: Final = "sidecar-rollout"
_MOST_RESTARTS = 3
_LOG_LINES = 5
_ANSWERS_TO_NOBODY = ("ExposedPorts", "Hostname", "Domainname", "MacAddress", "Healthcheck")


def helper_request(request: CreateRequest, *, image_id: str, rollout_id: str) -> Json:
    """Make the request of the helper out of that of the new daemon: the same rights and volumes, and nothing to serve.

    It is started again by the engine until it is done, over a reboot too.
    """
    body = {key: value for key, value in request.body.items() if key not in _ANSWERS_TO_NOBODY}
    host = request.body["HostConfig"] | {
        "PortBindings": {},
        "PublishAllPorts": False,
        "AutoRemove": False,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 0},
    }
    networks = request.body["NetworkingConfig"]["EndpointsConfig"]
    return body | {
        "Image": image_id,
        "Cmd": [COMMAND],
        # Compose is to take it for nothing of its own, and no Sidecar for a target.
        "Labels": {"sidecar.enable": "false", _ROLLOUT_LABEL: rollout_id},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": {name: {} for name in networks}},
    }


class Helper:
    """Updates the container of this process.

    Args:
        keep, forget: write down the rollout for the helper, and remove that.
    """

    def __init__(self, engine: Engine, *, keep: Callable[[Rollout], None], forget: Callable[[], None]) -> None:
        self._engine = engine
        self._keep = keep
        self._forget = forget

    async def hand_over(self, name: str, rollout: Rollout) -> None:
        """Have a helper carry the rollout on; this process is about to be stopped by it.

        Raises:
            Postponed: always, once one is there: it is not for us any more.
        """
        found = await self._find(name)
        labels = found["Config"].get("Labels") or {} if found is not None else {}
        if found is not None and (labels.get(_ROLLOUT_LABEL) != rollout.id or _has_ended_well(found)):
            await self._engine.remove_container(found["Id"], volumes=True, force=True)
            found = None
        if found is None:
            self._keep(rollout)
            found = await self._create(name, rollout)
        if state_of(found) in (State.CREATED, State.EXITED):  # the engine leaves alone what somebody stopped
            await self._connect(found, rollout)
            await self._engine.start(found["Id"])
        helper = name + HELPER_SUFFIX
        msg = f"{name} is updated by its helper {helper}, which is about to stop it; see `sidecar history`"
        raise Postponed(msg)

    async def failure(self, name: str) -> str | None:
        """Say how the helper failed, again and again; None: it works, or there is none."""
        found = await self._find(name)
        if found is None or (found.get("RestartCount") or 0) < _MOST_RESTARTS:
            return None
        words = (await self._engine.logs(found["Id"], tail=_LOG_LINES)).strip().splitlines()
        detail = detail_of(found)
        said = f": {words[-1]!r}" if words else ""
        return f"the helper of its image ended {found['RestartCount']} times ({detail}){said}"

    async def remove(self, name: str) -> None:
        """Remove it, whatever it does: the rollout is over."""
        if (found := await self._find(name)) is not None:
            await self._engine.remove_container(found["Id"], volumes=True, force=True)
        self._forget()  # at last: as long as it runs it may write that down anew

    async def _create(self, name: str, rollout: Rollout) -> Json:
        request = CreateRequest.from_json((rollout.plan or {})["request"])
        body = helper_request(request, image_id=rollout.to.image_id or "", rollout_id=rollout.id)
        ident = await self._engine.create_container(body, name=name + HELPER_SUFFIX, platform=request.platform)
        inspected = await self._engine.inspect_container(ident)
        if inspected is None:
            msg = f"the helper of {name} was removed by somebody"
            raise Postponed(msg)
        return inspected[0]

    async def _connect(self, helper: Json, rollout: Rollout) -> None:
        """Put it on the networks that an engine before API 1.44 does not take when it is created."""
        request, found = CreateRequest.from_json((rollout.plan or {})["request"]), networks(helper)
        for connect in request.connects:
            if connect.network not in found:
                await self._engine.connect_network(connect.network, helper["Id"], {})

    async def _find(self, name: str) -> Json | None:
        inspected = await self._engine.inspect_container(name + HELPER_SUFFIX)
        return inspected[0] if inspected is not None else None


def _has_ended_well(container: Json) -> bool:
    return state_of(container) is State.EXITED and not container["State"].get("ExitCode")
