import pytest

for part in ("basics", "claims", "order", "threads", "tools"):
    pytest.register_assert_rewrite(f"hive_task.background._conformance_{part}")
