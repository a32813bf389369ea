"""A stream of requests through a reverse proxy on the container network, while what is behind it is updated."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from tests.integration.engines import ON_EACH
from tests.integration.line import Line, open_line
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.proxy import PORT, proxy
from tests.testbed.registry import Registry

pytestmark = pytest.mark.timeout(300)
START_FIRST = ("--label=sidecar.strategy=start-first", "--label=sidecar.drain=2s", "--restart=always")
GRACEFUL = images.Behaviour.GRACEFUL
AT_ONCE = 3
# Each answer, or that there was none, is a line; they end with the file that was there before them.
ASK = f"""
touch /tmp/asking
for number in $(seq {AT_ONCE}); do
  while [ -e /tmp/asking ]; do wget -q -O - http://127.0.0.1:{PORT}/ 2>&1 || echo none; done >/tmp/answers.$number &
done
wait
"""
STOP = "rm /tmp/asking; sleep 2; cat /tmp/answers.*"


@pytest.fixture
async def line(engine: Engine, registry: Callable[..., Registry]) -> AsyncIterator[Line]:
    """The line over one of the engines, with a container that is known as `here` and a proxy before it."""
    async with open_line(engine, registry()) as opened:
        opened.push(images.web("1", GRACEFUL))
        opened.push(proxy(f"here:{images.PORT}"), "proxy:1")
        await opened.pull()
        await opened.docker("network", "create", "front")
        await opened.make("run", "web", *START_FIRST, "--network=front", "--network-alias=here")
        reference = opened.store.reference("proxy:1")
        await opened.docker("run", "--detach", "--name=proxy", "--network=front", reference)
        yield opened


@ON_EACH
async def test_no_request_fails_while_one_takes_over_from_the_other(line: Line) -> None:
    """Every request of the stream has an answer: of the old one, then of both, then of the new one."""
    await line.docker("exec", "--detach", "proxy", "sh", "-c", ASK)
    for version in ("2", "3"):
        line.push(images.web(version, GRACEFUL))
        await line.update("web")
    answers = Counter((await line.docker("exec", "proxy", "sh", "-c", STOP)).split("\n"))
    assert answers.keys() == {"1", "2", "3"}, answers
    assert min(answers.values()) > AT_ONCE, answers
