"""A daemon that remembers what it was asked."""

from collections.abc import Callable, Mapping, Sequence

from sidecar.control_port import Looked, Shown, Unmanaged, WrongCredentials
from sidecar.core.hint import Hint
from sidecar.core.image import Digest, ImageRef
from sidecar.core.policy import Policy
from sidecar.core.rollout import Phase, Revision, Rollout
from sidecar.core.target import Image, Kind, Observed, State, Target
from sidecar.errors import Refused
from sidecar.ports import Delivery, Described, History, Spec, Transition

OLD, NEW = Digest(f"sha256:{'1' * 64}"), Digest(f"sha256:{'2' * 64}")
REF = ImageRef.parse("me/app:1")
TARGET = Target(id="docker:web", kind=Kind.DOCKER, ref=REF, policy=Policy(), service="shop/web", project="shop")
LOOKED = Looked(target=TARGET, verdict="rollout", reason="", running=OLD, available=NEW)
ROLLOUT = Rollout(
    id="rollout-1",
    target_id=TARGET.id,
    service=TARGET.service,
    repository=REF.name,
    ref=str(REF),
    cause="webhook",
    delivery_ids=("delivery-1",),
    min_ready_seconds=10,
    deadline_seconds=300,
    platform="linux/amd64",
    from_=Revision(digest=OLD),
    to=Revision(digest=NEW),
    started_at=1700000000.0,
    run_state=State.RUNNING,
    phase=Phase.ROLLED_BACK,
    reason="became unhealthy",
)
OBSERVED = Observed(now=1.0, state=State.RUNNING, instance="c1", image=Image(id="sha256:9", digests=frozenset({OLD})))
SPEC = Spec(request={"Env": ["PASSWORD=secret"]}, commands=["docker create --name=web me/app:1", "docker start web"])
DELIVERY = Delivery(
    id="delivery-1",
    source="dockerhub",
    received_at=1700000000.25,
    fate="refused",
    reason="pusher 'mallory' is not allowed",
    remote="192.0.2.1",
    pusher="mallory",
    hints=(Hint(REF),),
    body=b'{"push_data": {"pusher": "mallory"}}',
    callback_url="https://registry.hub.docker.com/u/me/app/hook/secret/",
)


class FakeControl:
    """Implements `control_port.Control`."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.unwell: dict[str, str] = {}
        self.fails: Exception | None = None
        self.on_update: Callable[[str], None] = lambda _delivery_id: None
        self.recorded_at = [1700000001.5]
        self.deliveries = [DELIVERY]
        self.released = 2
        self.spec: Spec | None = SPEC
        self.last: Rollout | None = ROLLOUT
        self.wrong = [WrongCredentials(source="generic", count=3, last_at=1700000002.0)]

    def _note(self, *what: object) -> None:
        self.asked.append(what)
        if self.fails is not None:
            raise self.fails

    async def targets(self) -> tuple[Sequence[Looked], Sequence[Unmanaged]]:
        self._note("targets")
        return [LOOKED], [Unmanaged(name="db", image="postgres:16", reason="has no label sidecar.enable=true")]

    async def show(self, text: str, *, with_spec: bool) -> Sequence[Shown]:
        self._note("show", text, with_spec)
        if text == "nothing":
            msg = f"nothing is meant by {text!r}"
            raise Refused(msg)
        described = Described(previous_image="sha256:8", spec=self.spec if with_spec else None)
        rejected = {NEW: "became unhealthy"}
        return [Shown(looked=LOOKED, observed=OBSERVED, described=described, rollout=self.last, rejected=rejected)]

    async def plan(self, text: str | None) -> Sequence[Looked]:
        self._note("plan", text)
        return [LOOKED]

    async def update(self, text: str) -> tuple[str, Sequence[str]]:
        self._note("update", text)
        if text == "nothing":
            msg = f"nothing is meant by {text!r}"
            raise Refused(msg)
        return "delivery-2", [TARGET.id]

    async def update_matching(
        self, *, images: Sequence[str], names: Sequence[str]
    ) -> tuple[str, Sequence[str], Sequence[str]]:
        self._note("update_matching", tuple(images), tuple(names))
        self.on_update("delivery-4")
        return "delivery-4", [TARGET.id], [text for text in (*images, *names) if text == "nothing"]

    async def release(self, text: str) -> tuple[str, Mapping[str, int]]:
        self._note("release", text)
        return "delivery-3", {TARGET.id: self.released}

    async def history(self, *, limit: int, target_id: str | None = None) -> History:
        self._note("history", limit, target_id)
        transitions = [Transition(rollout=ROLLOUT, recorded_at=seconds) for seconds in self.recorded_at]
        return History(transitions=transitions, deliveries=self.deliveries)

    def wrong_credentials(self) -> Sequence[WrongCredentials]:
        self._note("wrong-credentials")
        return self.wrong

    async def ready(self) -> Mapping[str, str]:
        return self.unwell
