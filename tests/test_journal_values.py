"""What the journal writes down is what it reads again, whatever the value."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import journal_sql as sql
from sidecar.core.hint import Hint
from sidecar.core.image import Digest, ImageRef
from sidecar.core.rollout import Revision, Rollout
from sidecar.journal_values import (
    encode,
    merge,
    read_delivery,
    read_rollout,
    write_delivery,
    write_plan,
    write_rollout,
)
from sidecar.ports import Delivery
from tests.journal_contract import NEW, a_rollout

pytestmark = pytest.mark.timeout(30)  # nothing waits here, but there are many examples

DIGESTS = st.integers(0, 2**256 - 1).map(lambda number: Digest(f"sha256:{number:064x}"))
NUMBERS = st.floats(allow_nan=False)
TEXTS = st.text(max_size=10)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
REVISIONS = st.builds(Revision, digest=st.none() | DIGESTS)
# What is not named is made by its type, so that a field added later is tried as well.
ROLLOUTS = st.builds(
    Rollout,
    delivery_ids=st.lists(TEXTS, max_size=3).map(tuple),
    started_at=NUMBERS,
    min_ready_seconds=NUMBERS,
    deadline_seconds=NUMBERS,
    goal_started_at=st.none() | NUMBERS,
    from_=REVISIONS,
    to=REVISIONS,
    plan=st.none() | st.dictionaries(TEXTS, JSON, max_size=2),
)
NAMES = st.sampled_from(["a", "0", "library", "nginx", "my-app", "a__b", "a.b", "a--b_c"])
TAGS = st.sampled_from(["", ":1", ":latest", ":1.27-alpine", ":_", ":A.b-c"])
REFS = st.builds(
    lambda host, path, tag: ImageRef.parse(host + "/".join(path) + tag),
    st.sampled_from(["", "docker.io/", "localhost/", "Registry.Example:5000/", "[::1]:5000/", "index.docker.io/"]),
    st.lists(NAMES, min_size=1, max_size=3),
    TAGS,
)
DELIVERIES = st.builds(Delivery, received_at=NUMBERS, hints=st.lists(REFS.map(Hint), max_size=3).map(tuple))


@settings(max_examples=50)
@given(rollout=ROLLOUTS)
def test_a_rollout_is_read_as_it_was_written(rollout: Rollout):
    """Any rollout comes back equal, digests as digests."""
    first, plan = encode(write_rollout(rollout)), write_plan(rollout)
    read = merge(first, "{}", plan)
    assert read == rollout
    assert [type(each.digest) for each in (read.from_, read.to)] == [
        type(each.digest) for each in (rollout.from_, rollout.to)
    ]
    assert first.isascii()


@settings(max_examples=25)
@given(values=st.lists(ROLLOUTS, min_size=1, max_size=4))
def test_the_newest_value_is_read_whatever_changed(values: list[Rollout]):
    """Even where fields change that never should, the last value is the one that is read."""
    values = [replace(value, id="r1", target_id="docker:web", phase=a_rollout().phase) for value in values]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(sql.MIGRATIONS[0])
        sql.append(connection.execute, values, 1.0)
        assert [merge(*row) for row in connection.execute(sql.OPEN_ROLLOUTS)] == [values[-1]]
        newest = [merge(*row[:2]) for row in connection.execute(sql.NEWEST_TRANSITIONS, (9,))]
    assert newest == [replace(value, plan=None) for value in reversed(values)]


@given(delivery=DELIVERIES)
def test_a_delivery_is_read_as_it_was_written(delivery: Delivery):
    """Any delivery comes back equal."""
    assert read_delivery(write_delivery(delivery)) == delivery


def test_a_value_of_an_unknown_kind_is_an_error():
    """What this version cannot read is a ValueError that names the rollout where it can."""
    values = write_rollout(a_rollout())
    with pytest.raises(ValueError, match=r"reading rollout 'r1': .*'ref'"):
        read_rollout({name: value for name, value in values.items() if name != "ref"})
    with pytest.raises(ValueError, match="'sha3:1' is not"):
        read_rollout(values | {"to": {"digest": "sha3:1"}})
    assert read_rollout(values | {"to": {}}).to == Revision()
    assert read_rollout(values).to.digest == NEW
