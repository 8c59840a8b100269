from __future__ import annotations

import pytest

pytest.register_assert_rewrite("kern.testing.db", "kern.testing._db_commits", "kern.testing._db_sharing")
