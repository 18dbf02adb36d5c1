"""Every POSIX call and every program once more over TLS."""

from __future__ import annotations

import pytest

from tests.fs.test_over_tls import s3, server  # noqa: F401
from tests.fs.test_posix import *  # noqa: F403
from tests.fs.test_programs import *  # noqa: F403

pytestmark = pytest.mark.long
