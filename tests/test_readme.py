"""The README's programs run."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_is_something_to_run():
    assert BLOCKS


@pytest.mark.parametrize("source", BLOCKS)
def test_code_block(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for those that write files
    exec(compile(source, "README.md", "exec"), {})
