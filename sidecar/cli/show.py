"""The command that shows all that is known of a target, or what makes its container again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sidecar.cli.daemon import Daemon
from sidecar.cli.output import hint, say, say_json

Json = Mapping[str, Any]


def show(asked: Daemon, what: str, *, with_spec: bool, as_json: bool) -> int:
    """Show targets; with what makes them again as a script for a shell, in whose comments the create request is."""
    body = asked.get("/show", target=what, spec="true" if with_spec else None)
    if as_json:
        say_json(body)
        return 0
    if not with_spec:
        for each in body["shown"]:
            _say_facts(each)
        return 0
    unknown = [each["target"]["id"] for each in body["shown"] if each["spec"] is None]
    for each in body["shown"]:
        if each["spec"] is not None:
            _say_spec(each["target"]["id"], each["spec"])
    for target_id in unknown:
        hint(f"sidecar: {target_id}: nothing makes it again: it is no container, or neither engine nor journal has it")
    return 1 if unknown else 0


def _say_facts(shown: Json) -> None:
    rows = [(name, value) for name, value in _facts(shown) if value]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        first, *rest = value if isinstance(value, list) else [value]
        say(f"{name.ljust(width)}  {first}")
        for line in rest:
            say(f"{'':{width}}  {line}")


def _facts(shown: Json) -> Iterator[tuple[str, str | list[str]]]:
    target, policy, rollout = shown["target"], shown["policy"], shown["rollout"]
    yield "target", target["id"]
    yield "image", target["image"]
    yield "image id", shown["image_id"] or ""
    yield "digests", list(shown["digests"])
    yield "state", f"{shown['state']}, {shown['health']}" if shown["state"] == "running" else shown["state"]
    yield "verdict", f"{target['verdict']}: {target['reason']}"
    yield "policy", _policy(policy)
    yield "previous image", shown["previous_image"]
    yield "rejected", [f"{digest}: {reason}" for digest, reason in shown["rejected"].items()]
    if rollout is not None:
        said = f"{rollout['rollout_id']} to {rollout['digest']}: {rollout['phase']}"
        yield "last rollout", said + (f": {rollout['reason']}" if rollout["reason"] else "")
        yield "by hand", list(rollout["recovery"])


def _policy(policy: Json) -> str:
    words: Sequence[str] = [
        policy["action"],
        policy["strategy"],
        f"healthy for {policy['min_ready_seconds']:g} seconds",
        f"within {policy['deadline_seconds']:g} seconds",
        "put back when it fails" if policy["rollback"] else "not put back when it fails",
        f"{policy['when_stopped']} when stopped",
        *(f"after {name}" for name in policy["depends_on"]),
    ]
    return ", ".join(words)


def _say_spec(target_id: str, spec: Json) -> None:
    say(f"# {target_id}: the create request, then the same for Docker's client; `| sh` makes it again")
    for line in json.dumps(spec["request"], indent=2).splitlines():
        say(f"# {line}")
    for command in spec["commands"]:
        say(command)
