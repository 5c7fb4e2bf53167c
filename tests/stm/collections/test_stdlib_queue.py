"""The interpreter's own tests of `queue.Queue` and `queue.PriorityQueue`, run with `TQueue` and `TPriorityQueue`."""

import types
import unittest

import pytest

from stm.collections import Empty, Full, ShutDown, TPriorityQueue, TQueue

stdlib = pytest.importorskip("test.test_queue", reason="this interpreter comes without its own tests")

#: What of it is left out, and why.
EXCLUDED = {
    "PyLifoQueueTest": "there is no such queue here",
    "CLifoQueueTest": "there is no such queue here",
    "PyFailingQueueTest": "overrides what is inside queue.Queue (_put, _get)",
    "CFailingQueueTest": "overrides what is inside queue.Queue (_put, _get)",
    "CSimpleQueueTest": "as PySimpleQueueTest, and that SimpleQueue is written in C",
    "CQueueTest": "as PyQueueTest: both are written in Python, their Empty is not",
    "CPriorityQueueTest": "as PyPriorityQueueTest: both are written in Python, their Empty is not",
}

INCLUDED = {"PyQueueTest", "PyPriorityQueueTest", "PySimpleQueueTest"}


class Queue(TQueue):  # the tests look at the class's name
    pass


class PriorityQueue(TPriorityQueue):
    pass


OURS = types.SimpleNamespace(
    Queue=Queue, PriorityQueue=PriorityQueue, _PySimpleQueue=Queue, Empty=Empty, Full=Full, ShutDown=ShutDown
)


class TestQueue(stdlib.PyQueueTest):
    queue = OURS


class TestPriorityQueue(stdlib.PyPriorityQueueTest):
    queue = OURS


class TestSimpleQueue(stdlib.PySimpleQueueTest):
    queue = OURS


def test_nothing_else_is_left_out():
    found = {
        name
        for name, value in vars(stdlib).items()
        if isinstance(value, type) and issubclass(value, unittest.TestCase) and value.__module__ == stdlib.__name__
    }
    assert found == INCLUDED | set(EXCLUDED)
