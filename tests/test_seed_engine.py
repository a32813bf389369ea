"""What the application could do that Sidecar began from, at the engine: credentials, the pull, the prune."""

from __future__ import annotations

import pytest

from sidecar.targets.images import Prune
from tests.fakes import digest
from tests.targets.test_images import NAME, REF, Store


async def test_pulls_with_registry_credentials() -> None:
    """What is configured for the registry goes to the engine with the pull, and into no line."""
    store = Store()
    await store.pull("b")
    assert store.engine.auths == [{"username": "me", "password": "secret"}]
    assert "secret" not in str(store.events.told)


async def test_pulls_the_very_image_that_the_tag_means() -> None:
    """Where the first application pulled `latest` whatever was pushed, exactly the resolved digest is pulled."""
    store = Store()
    await store.images.pull(REF, digest("b"), platform=None, target="docker:web")
    assert store.engine.pulls == [f"{NAME}@{digest('b')}"]


@pytest.mark.parametrize("prune, pruned", [(Prune.SYSTEM, ["system"]), (Prune.DANGLING, ["images"])])
async def test_prunes_after_an_update_as_set(prune: Prune, pruned: list[str]) -> None:
    """What `docker system prune -f` did before every pull is done after an update, by a setting."""
    store = Store(prune)
    await store.images.tidy(target="web", unused=[])
    assert store.engine.pruned == pruned
