"""The small internet as a fixture; its keys are made once a run."""

from collections.abc import AsyncIterator

import pytest

from tests.oci.internet import Authority, make_authority
from tests.oci.stage import Guarded, Stage, staged


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def stage(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    authority.replace_the_systems(monkeypatch)
    async with staged(authority) as one:
        yield one


@pytest.fixture
def guarded(stage: Stage) -> Guarded:
    return Guarded(stage)
