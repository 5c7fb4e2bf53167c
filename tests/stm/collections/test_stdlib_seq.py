"""The standard library's tests of sequences and lists, against `TVector`."""

import pytest

from stm import TVector
from tests.stm.collections.stdlib import adapted

seq_tests = pytest.importorskip("test.seq_tests", reason="this interpreter comes without its tests")
list_tests = pytest.importorskip("test.list_tests", reason="this interpreter comes without its tests")

#: Each must fail, or it would have no place here.
EXCLUDED = {
    "test_exhausted_iterator": "an iterator goes through one moment's elements: it never sees later ones",
    "test_extend": "asks to overlook an iterable that says its length is sys.maxsize, which list(...) does not",
    "test_free_after_iterating": "an iterator holds a moment's elements, not the vector, which is free at once",
    "test_pickle": "a vector can't be pickled, its snapshot can",
    "test_repr": "asks for a list's text; ours says TVector([...]), see test_vector.py",
}

TestSequence = adapted(seq_tests.CommonTest, EXCLUDED, type2test=TVector)
TestList = adapted(list_tests.CommonTest, EXCLUDED, type2test=TVector)
