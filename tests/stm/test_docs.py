"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil

import pytest

import hive_task
import stm

MODULES = [
    module.name
    for package in (stm, hive_task)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]


@pytest.mark.parametrize("name", ["stm", "hive_task", *MODULES])
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
