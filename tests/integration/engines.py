"""On which engines a test runs: what has nothing to do with how images are kept is on the third one for a sweep."""

import pytest

from tests.testbed.engine import NEW, OLD
from tests.testbed.parts import STORE_VERSION

_KINDS = [OLD.version, NEW.version, pytest.param(STORE_VERSION, marks=pytest.mark.sweep)]
ON_EACH = pytest.mark.parametrize("engine", _KINDS, indirect=True)
ON_NEW = pytest.mark.parametrize("engine", [NEW.version], indirect=True)
OF_ANY_STORE = pytest.mark.parametrize("any_engine", _KINDS, indirect=True)
