import pytest

# Before anything imports them: their assertions are to be explained as those of tests are.
pytest.register_assert_rewrite("kern.testing.db", "kern.testing._db_commits", "kern.testing._db_sharing")
