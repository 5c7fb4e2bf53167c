"""The standard library's tests of mappings, against `TMap`."""

import pytest

from stm import TMap
from tests.stm.collections.stdlib import adapted

mapping_tests = pytest.importorskip("test.mapping_tests", reason="this interpreter comes without its tests")

#: Each must fail, or it would have no place here.
EXCLUDED = {
    "test_repr": "asks for a dictionary's text; ours says TMap({...}), see test_map.py",
}

TestBasic = adapted(mapping_tests.BasicTestMappingProtocol, {}, type2test=TMap)
TestMapping = adapted(mapping_tests.TestMappingProtocol, {}, type2test=TMap)
TestHashMapping = adapted(mapping_tests.TestHashMappingProtocol, EXCLUDED, type2test=TMap)
