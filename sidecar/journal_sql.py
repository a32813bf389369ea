"""The SQL of the journal: its tables, as the scripts that made them, one per version; and what is asked of them.

A script only adds (tables, indexes, columns that may be missing), and one that was released never changes: an older
Sidecar opens the file of a newer one, and every file is what these scripts made of it, in this order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from sidecar.core.rollout import Rollout
from sidecar.journal_values import DeliveryRow, encode, write_plan, write_rollout

# What is kept: the newest deliveries, up to so many and so many bytes of bodies; those that are still to be worked on
# always. Rollouts are kept for ever, but what their drivers prepared only of the newest.
KEPT_DELIVERIES, KEPT_BODY_BYTES = 10_000, 256 * 1024**2
KEPT_PLANS = 1_000

# Runs one statement with its parameters, within a transaction, and gives its rows.
Execute = Callable[[str, Sequence[object]], Iterable[Any]]

# "SdCr": tells a journal from whatever else may lie under its name.
APPLICATION_ID = 0x53644372

MIGRATIONS: tuple[str, ...] = (
    f"""
    PRAGMA application_id = {APPLICATION_ID};

    -- One row per request of a sender. What is asked before the body is read stands before it.
    CREATE TABLE deliveries (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        source TEXT NOT NULL,
        received_at REAL NOT NULL,
        fate TEXT NOT NULL,
        finished_at REAL,
        reason TEXT NOT NULL,
        remote TEXT NOT NULL,
        pusher TEXT NOT NULL,
        callback_url TEXT NOT NULL,
        hints TEXT NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX unfinished_deliveries ON deliveries (seq) WHERE fate = 'accepted' AND finished_at IS NULL;
    CREATE INDEX finished_deliveries ON deliveries (seq) WHERE fate <> 'accepted' OR finished_at IS NOT NULL;

    -- One row per rollout: its first value without the plan, and whether its last one is open.
    CREATE TABLE rollouts (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        target_id TEXT NOT NULL,
        is_open INTEGER NOT NULL,
        first TEXT NOT NULL,
        UNIQUE (target_id, id)
    ) STRICT;
    CREATE UNIQUE INDEX one_open_rollout_of_a_target ON rollouts (target_id) WHERE is_open;

    -- One row per recorded value: what differs from the first, and which plan it has. Never updated, never deleted.
    CREATE TABLE transitions (
        seq INTEGER PRIMARY KEY,
        rollout INTEGER NOT NULL REFERENCES rollouts (number),
        recorded_at REAL NOT NULL,
        plan_hash TEXT,
        changed TEXT NOT NULL
    ) STRICT;
    CREATE INDEX transitions_of_a_rollout ON transitions (rollout);

    -- Plans are large and rarely change: each is kept once per rollout.
    CREATE TABLE plans (
        rollout INTEGER NOT NULL REFERENCES rollouts (number),
        hash TEXT NOT NULL,
        plan TEXT NOT NULL,
        PRIMARY KEY (rollout, hash)
    ) STRICT;

    -- One row per rollout that rejected its digest; it counts until it is released.
    CREATE TABLE rejects (
        seq INTEGER PRIMARY KEY,
        service TEXT NOT NULL,
        repository TEXT NOT NULL,
        digest TEXT NOT NULL,
        rollout INTEGER NOT NULL REFERENCES rollouts (number),
        reason TEXT NOT NULL,
        rejected_at REAL NOT NULL,
        released_at REAL,
        UNIQUE (service, repository, digest, rollout)
    ) STRICT;

    CREATE TABLE digests (
        repository TEXT NOT NULL,
        digest TEXT NOT NULL,
        first_seen_at REAL NOT NULL,
        PRIMARY KEY (repository, digest)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE image_targets (
        seq INTEGER PRIMARY KEY,
        ref TEXT NOT NULL UNIQUE,
        added_at REAL NOT NULL
    ) STRICT;

    -- The one row that is written to see whether the journal can be written.
    CREATE TABLE probes (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        written_at REAL NOT NULL
    ) STRICT;
    """,
)

# Only the probe: the least that shows that the journal can be written and read.
PROBE = "INSERT OR REPLACE INTO probes (id, written_at) VALUES (1, ?) RETURNING written_at"

# With `{}` for the rows; see `accept`.
_ACCEPT = """
    INSERT INTO deliveries (id, source, received_at, fate, reason, remote, pusher, callback_url, hints, body)
    VALUES {} ON CONFLICT (id) DO NOTHING"""
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# As many at most by one statement: SQLite takes 32,766 parameters.
MOST_ROWS = 500
FINISH = """
    UPDATE deliveries SET finished_at = ?
    WHERE id IN (SELECT value FROM json_each(?)) AND finished_at IS NULL"""
# Without the bodies: after a long time without an engine they would fill the memory, and nothing is read out of them.
UNFINISHED_DELIVERIES = """
    SELECT id, source, received_at, fate, reason, remote, pusher, callback_url, hints, x'' FROM deliveries
    WHERE fate = 'accepted' AND finished_at IS NULL ORDER BY seq"""
NEWEST_DELIVERIES = """
    SELECT id, source, received_at, fate, reason, remote, pusher, callback_url, hints, body FROM deliveries
    ORDER BY seq DESC LIMIT ?"""
NEWEST_DELIVERIES_OF_TARGET = """
    SELECT id, source, received_at, fate, reason, remote, pusher, callback_url, hints, body FROM deliveries
    WHERE id IN (SELECT value FROM rollouts, json_each(rollouts.first, '$.delivery_ids') WHERE target_id = ?)
    ORDER BY seq DESC LIMIT ?"""

OTHER_OPEN_ROLLOUT = "SELECT id FROM rollouts WHERE is_open AND target_id = ? AND id <> ?"
ROLLOUT = """
    INSERT INTO rollouts (id, target_id, is_open, first) VALUES (?, ?, ?, ?)
    ON CONFLICT (target_id, id) DO UPDATE SET is_open = excluded.is_open RETURNING number, first"""
PLAN = "INSERT INTO plans (rollout, hash, plan) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
TRANSITION = "INSERT INTO transitions (rollout, recorded_at, plan_hash, changed) VALUES (?, ?, ?, ?)"
OPEN_ROLLOUTS = """
    SELECT first, changed, plan FROM rollouts
    JOIN transitions ON seq = (SELECT max(seq) FROM transitions WHERE rollout = number)
    LEFT JOIN plans ON plans.rollout = number AND hash = plan_hash
    WHERE is_open ORDER BY +number"""  # the plus: sorted after the index of the open ones was used
OPEN_ROLLOUT_OF_TARGET = """
    SELECT first, changed, plan FROM rollouts
    JOIN transitions ON seq = (SELECT max(seq) FROM transitions WHERE rollout = number)
    LEFT JOIN plans ON plans.rollout = number AND hash = plan_hash
    WHERE is_open AND target_id = ?"""
LAST_ROLLOUT_OF_TARGET = """
    SELECT first, changed, plan FROM rollouts
    JOIN transitions ON seq = (SELECT max(seq) FROM transitions WHERE rollout = number)
    LEFT JOIN plans ON plans.rollout = number AND hash = plan_hash
    WHERE target_id = ? ORDER BY number DESC LIMIT 1"""
NEWEST_TRANSITIONS = """
    SELECT first, changed, recorded_at FROM transitions JOIN rollouts ON number = rollout
    ORDER BY seq DESC LIMIT ?"""
NEWEST_TRANSITIONS_OF_TARGET = """
    SELECT first, changed, recorded_at FROM transitions JOIN rollouts ON number = rollout
    WHERE target_id = ? ORDER BY seq DESC LIMIT ?"""

REJECT = """
    INSERT INTO rejects (service, repository, digest, rollout, reason, rejected_at) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING"""
REJECTED = """
    SELECT digest, reason FROM rejects WHERE service = ? AND repository = ? AND released_at IS NULL ORDER BY seq"""
RELEASE = """
    UPDATE rejects SET released_at = ? WHERE service = ? AND repository = ? AND released_at IS NULL RETURNING digest"""

# A no-op for a digest that is known: nothing is flushed.
NOTE_DIGEST = "INSERT INTO digests (repository, digest, first_seen_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
FIRST_SEEN = "SELECT first_seen_at FROM digests WHERE repository = ? AND digest = ?"
ADD_IMAGE_TARGET = "INSERT INTO image_targets (ref, added_at) VALUES (?, ?) ON CONFLICT DO NOTHING"
IMAGE_TARGETS = "SELECT ref FROM image_targets ORDER BY seq"

TRIM_DELIVERIES = """
    DELETE FROM deliveries WHERE (fate <> 'accepted' OR finished_at IS NOT NULL)
    AND seq <= (SELECT max(seq) FROM deliveries) - ?"""
USED_BYTES = """
    SELECT (page_count - freelist_count) * page_size
    FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"""
TRIM_BODIES = """
    DELETE FROM deliveries WHERE (fate <> 'accepted' OR finished_at IS NOT NULL) AND seq <= (
        SELECT max(seq) FROM (SELECT seq, sum(length(body)) OVER (ORDER BY seq DESC) AS bytes FROM deliveries)
        WHERE bytes > ?)"""
TRIM_PLANS = """
    DELETE FROM plans WHERE rollout IN (
        SELECT number FROM rollouts WHERE NOT is_open AND number <= (SELECT max(number) FROM rollouts) - ?)"""


def append(execute: Execute, rollouts: Iterable[Rollout], now: float) -> None:
    """Append one value of each rollout, and the reject that it implies.

    Raises:
        ValueError: another rollout of the target is open.
    """
    for rollout in rollouts:
        for (other,) in execute(OTHER_OPEN_ROLLOUT, (rollout.target_id, rollout.id)):
            if rollout.is_open:
                msg = f"recording rollout {rollout.id!r}: rollout {other!r} of {rollout.target_id!r} is open"
                raise ValueError(msg)
        _append(execute, rollout, now)


def _append(execute: Execute, rollout: Rollout, now: float) -> None:
    fields = write_rollout(rollout)
    ((number, first),) = execute(ROLLOUT, (rollout.id, rollout.target_id, rollout.is_open, encode(fields)))
    known = json.loads(first)
    changed = {name: value for name, value in fields.items() if name not in known or known[name] != value}
    plan = write_plan(rollout)
    plan_hash = None if plan is None else hashlib.sha256(plan.encode()).hexdigest()
    if plan is not None:
        execute(PLAN, (number, plan_hash, plan))
    execute(TRANSITION, (number, now, plan_hash, encode(changed)))
    if rollout.rejected is not None:
        execute(REJECT, (rollout.service, rollout.repository, rollout.rejected, number, rollout.reason, now))


def accept(execute: Execute, rows: Sequence[DeliveryRow]) -> None:
    """Keep deliveries, many by one statement: for each the thread has to wait until it may run again."""
    for first in range(0, len(rows), MOST_ROWS):
        some = rows[first : first + MOST_ROWS]
        execute(_accept(len(some)), [value for row in some for value in row])


@lru_cache(maxsize=64)
def _accept(rows: int) -> str:
    return _ACCEPT.format(", ".join([_ROW] * rows))


def trim(execute: Execute) -> None:
    """Forget what is older than what is kept."""
    execute(TRIM_DELIVERIES, (KEPT_DELIVERIES,))
    ((used_bytes,),) = execute(USED_BYTES, ())
    if used_bytes > KEPT_BODY_BYTES:  # a look at every delivery, so only when the file is large
        execute(TRIM_BODIES, (KEPT_BODY_BYTES,))
    execute(TRIM_PLANS, (KEPT_PLANS,))
