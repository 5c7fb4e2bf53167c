"""The standard library's tests of sets, against `TSet`.

They are loaded once more as a module of its own, in which the name `set` means `TSet`. Left out are those of frozen
sets, and those that repeat with subclasses what happens when comparisons change a set.
"""

import importlib.util
import re
import unittest

import pytest

from stm import TSet
from tests.stm.collections.stdlib import adapted

pytest.importorskip("test.test_set", reason="this interpreter comes without its tests")

spec = importlib.util.find_spec("test.test_set")
theirs = importlib.util.module_from_spec(spec)
theirs.set = TSet
spec.loader.exec_module(theirs)
theirs.empty_set = TSet()

LEFT_OUT = re.compile("Frozen|Mutating.*Subclass")

TEXT = "asks for a set's text; ours says TSet({...}), see test_set.py"

#: By class and name, or by name. Each must fail, or it would have no place here.
EXCLUDED = {
    "test_cyclical_repr": TEXT,
    "test_do_not_rehash_dict_keys": "an element is hashed twice, to find its stripe and its place there",
    "test_free_after_iterating": "an iterator holds a moment's elements, not the set, which is free at once",
    "test_iterator_pickling": "iterators can't be pickled",
    "test_pickling": "a set can't be pickled, its snapshot can",
    "TestBasicOpsBytes.test_repr": TEXT,
    "TestBasicOpsEmpty.test_repr": TEXT,
    "TestBasicOpsMixedStringBytes.test_repr": TEXT,
    "TestBasicOpsSingleton.test_repr": TEXT,
    "TestBasicOpsString.test_repr": TEXT,
    "TestBasicOpsTuple.test_repr": TEXT,
    "TestExceptionPropagation.test_changingSizeWhileIterating": "iteration goes through one moment's elements",
    "TestSetSubclass.test_keywords_in_subclass": "asks that a subclass's __new__ may pass its arguments on",
    "test_iteration": "asks an iterator for __length_hint__",
}


def classes():
    for name, value in vars(theirs).items():
        if isinstance(value, type) and issubclass(value, unittest.TestCase) and not LEFT_OUT.search(name):
            table = {test: reason for test, reason in EXCLUDED.items() if "." not in test}
            for test, reason in EXCLUDED.items():
                if test.startswith(f"{name}."):
                    table[test.removeprefix(f"{name}.")] = reason
            yield name, adapted(value, table)


globals().update(classes())
