"""The commands that ask the daemon: targets, plan, update, release, history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sidecar.cli.daemon import Daemon, DaemonUnreachable
from sidecar.cli.follow import Followed
from sidecar.cli.output import hint, say, say_json, say_table
from sidecar.cli.progress import Display, display
from sidecar.errors import Misconfigured
from sidecar.settings_model import load_settings
from sidecar.tokens import ADMIN, kept_token

# A daemon that restarts (it may be the one that is updated) is back within a few of these.
_MOST_RECONNECTS = 20
_RECONNECT_SECONDS = 1.0
_SHORT_DIGEST = len("sha256:") + 12


def daemon(server: str | None, environ: Mapping[str, str], cwd: Path) -> Daemon:
    """Find the daemon that is meant: the one at an address, else the one that keeps its state here.

    Raises:
        Misconfigured: a setting is wrong, or there is no token for the address.
    """
    settings = load_settings(environ, cwd)
    server = server or environ.get("SIDECAR_SERVER")
    if not server:
        return Daemon.in_folder(settings.state_dir)
    token = settings.admin_token.get_secret_value() if settings.admin_token else kept_token(settings.state_dir, ADMIN)
    if token is None:
        msg = f"asking {server!r}: set SIDECAR_ADMIN_TOKEN to what `sidecar token --admin` says there"
        raise Misconfigured(msg)
    return Daemon.at(server, token)


def targets(asked: Daemon, *, as_json: bool) -> int:
    """Show what is managed, and for everything else why not."""
    body = asked.get("/targets")
    if as_json:
        say_json(body)
        return 0
    managed = [_target_row(each) for each in body["targets"]]
    left_alone = [(each["name"], each["image"], "", "", f"not managed: {each['reason']}") for each in body["unmanaged"]]
    say_table(("TARGET", "IMAGE", "RUNNING", "VERDICT", "WHY"), [*managed, *left_alone], explained=True)
    return 0


def plan(asked: Daemon, what: str | None, *, as_json: bool) -> int:
    """Show what would be done now."""
    body = asked.get("/plan", ref=what)
    if as_json:
        say_json(body)
        return 0
    rows = [
        (
            each["id"],
            each["image"],
            _digest(each["running"]),
            _digest(each["available"]),
            each["verdict"],
            each["reason"],
        )
        for each in body["plan"]
    ]
    say_table(("TARGET", "IMAGE", "RUNNING", "AVAILABLE", "VERDICT", "WHY"), rows, explained=True)
    return 0


def history(asked: Daemon, *, limit: int, target: str | None, as_json: bool) -> int:
    """Show what happened of late, newest first."""
    # A rollout is recorded many times, of which one row for each phase is shown.
    wanted = limit if as_json else min(limit * 10, 1000)
    body = asked.get("/history", limit=wanted, target=target, bodies="true" if as_json else None)
    if as_json:
        say_json(body)
        return 0
    # A rollout is recorded many times in one phase; people want to know when it entered each.
    entered = {(each["rollout_id"], each["phase"]): each for each in body["rollouts"]}
    rows = [
        (each["recorded_at"], each["target"], each["phase"], _digest(each["digest"] or ""), _why(each))
        for each in entered.values()
    ] + [
        (
            each["received_at"],
            f"{each['source']} {each['pusher']}",
            each["fate"],
            ", ".join(each["hints"]),
            each["reason"],
        )
        for each in body["deliveries"]
    ]
    latest = sorted(rows, reverse=True)[:limit]
    columns = ("TIME", "WHO", "WHAT", "WHICH", "WHY")
    say_table(columns, [(_to_the_second(time), *rest) for time, *rest in latest], explained=True)
    if not latest:
        hint("nothing is recorded" + (f" of {target}" if target else ""))
    return 0


def update(asked: Daemon, what: str, *, wait: bool, as_json: bool) -> int:
    """Have targets looked at now; wait for what becomes of it, if told."""
    if not wait:
        body = asked.post("/updates", {"what": what})
        if as_json:
            say_json(body)
        else:
            _say_enqueued(body["targets"], body["delivery"])
        return 0
    with asked.events() as events:
        # Only now, so that nothing that follows from it is missed.
        body = asked.post("/updates", {"what": what})
        followed = Followed(body["delivery"], body["targets"])
        with display(as_json=as_json) as shown:
            last_id = _follow(followed, events, shown)
            if followed.waiting:
                _follow_on(asked, followed, shown, last_id)
    for target_id, outcome in sorted(followed.outcomes.items()):
        shown.end(target_id, outcome)
    return 0 if followed.is_well else 1


def release(asked: Daemon, what: str, *, as_json: bool) -> int:
    """Let digests that failed on targets be tried again."""
    body = asked.post("/releases", {"what": what})
    if as_json:
        say_json(body)
        return 0
    for target_id, count in body["released"].items():
        digests = "1 digest" if count == 1 else f"{count} digests"
        say(f"{target_id}: {digests} may be tried again" if count else f"{target_id}: nothing was held back")
    _say_enqueued(body["released"], body["delivery"])
    return 0


def _say_enqueued(target_ids: Iterable[str], delivery_id: str) -> None:
    say(f"enqueued {', '.join(target_ids)} as delivery {delivery_id}; `sidecar history` shows what becomes of it")


def _follow(followed: Followed, events: Iterable[Any], shown: Display) -> str:
    """Take events in until every target is done or the stream ends; give the id of the last."""
    last_id = ""
    try:
        for event in events:
            last_id = event.id or last_id
            if followed.feed(event):
                shown.tell(event)
            if not followed.waiting:
                break
    except DaemonUnreachable as error:
        hint(f"sidecar: {error}")
    return last_id


def _follow_on(asked: Daemon, followed: Followed, shown: Display, last_id: str) -> None:
    """Go on where the stream broke off, for as long as a daemon takes to start anew.

    Raises:
        DaemonUnreachable: it does not come back; the update goes on without us, or at its next start.
    """
    from time import sleep

    for attempt in range(_MOST_RECONNECTS):
        sleep(_RECONNECT_SECONDS)
        try:
            with asked.events(last_id) as events:
                last_id = _follow(followed, events, shown) or last_id
        except DaemonUnreachable:
            if attempt == _MOST_RECONNECTS - 1:
                raise
        if not followed.waiting:
            return
    msg = f"following {followed.delivery_id}: the daemon ends the stream again and again"
    raise DaemonUnreachable(msg)


def _target_row(target: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    why = f"{target['phase']}: {target['reason']}" if target["phase"] else target["reason"]
    return target["id"], target["image"], _digest(target["running"]), target["verdict"], why


def _why(rollout: Mapping[str, Any]) -> str:
    commands = [command for command in rollout["recovery"] if not command.startswith("#")]
    return str(rollout["reason"]) + (f"; by hand it is put back by: {'; '.join(commands)}" if commands else "")


def _to_the_second(time: str) -> str:
    return time.partition(".")[0] + "Z"


def _digest(digest: str) -> str:
    return digest[:_SHORT_DIGEST]
