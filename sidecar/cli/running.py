"""What `sidecar doctor` finds where a daemon runs: whether it answers, and what it turned away of late."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sidecar.cli.daemon import Daemon, DaemonUnreachable
from sidecar.cli.finding import Finding, doubtful, well
from sidecar.errors import Misconfigured

_LOOKED_BACK = 200
_RECENT_SECONDS = 24 * 3600.0


def examine_daemon(daemon: Daemon) -> Iterator[Finding]:
    """See whether the daemon runs, and what it turned away."""
    try:
        deliveries = daemon.get("/history", limit=_LOOKED_BACK)["deliveries"]
        wrong = daemon.get("/wrong-credentials")["sources"]
    except (DaemonUnreachable, Misconfigured) as error:
        yield doubtful("daemon", str(error), "this examination needs no daemon; nothing is updated without one")
        return
    fates = Counter(delivery["fate"] for delivery in deliveries)
    yield well("daemon", f"it runs; of the last {len(deliveries)} deliveries it accepted {fates['accepted']}")
    recent = [each for each in deliveries if _age_seconds(each) <= _RECENT_SECONDS]
    turned_away = Counter((each["source"], each["fate"], each["reason"]) for each in _unresolved(recent))
    for (source, fate, reason), count in turned_away.most_common(5):
        says = f"{count} from {source} {fate} in the last day: {reason}"
        yield (
            doubtful("deliveries", says, "`sidecar history` shows them")
            if fate == "refused"
            else well("deliveries", says)
        )
    for each in wrong:
        requests = "1 request" if each["count"] == 1 else f"{each['count']} requests"
        yield doubtful(
            "deliveries",
            f"{requests} to {each['source']} had a wrong credential since the daemon started, the last at "
            f"{each['last_at']}",
            f"give the sender the address that `sidecar url {each['source']}` prints, unless it is a stranger",
        )


def _age_seconds(delivery: Mapping[str, Any]) -> float:
    return time.time() - datetime.fromisoformat(delivery["received_at"]).timestamp()


def _unresolved(deliveries: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Give those, newest first, that were not accepted, and after which the like of them was not accepted either."""
    accepted: list[Mapping[str, Any]] = []
    for each in deliveries:
        if each["fate"] == "accepted":
            accepted.append(each)
        elif each["fate"] != "refused" or not any(_is_like(each, later) for later in accepted):
            yield each


def _is_like(refused: Mapping[str, Any], accepted: Mapping[str, Any]) -> bool:
    """Say whether one came from the same sender, by the same pusher, for the same images, as far as that is known."""
    return (
        accepted["source"] == refused["source"]
        and refused["pusher"] in {"", accepted["pusher"]}
        and (not refused["hints"] or set(refused["hints"]) <= set(accepted["hints"]))
    )
