"""What a call of a compiled transaction does in Python between two attempts: wait, or become exclusive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from operator import call
from typing import Any

from stm.clock import clock, release_exclusive, unhold
from stm.compiled.joining import Event
from stm.compiled.log import ABORTS, EVENT, IDLE, INSIST, PASS, STATE, WAIT, YIELD
from stm.compiled.runtime import another_log
from stm.compiled.upcalls import insist, wait_for_change, wait_until_free, words_at
from stm.transaction import in_one_call


def resume(name: str, kernel: Callable[..., Any], log: int, args: Sequence[Any]) -> Any:
    """Finish a call whose kernel came back with an `Event`; or begin it, with another log (0)."""
    begun = log != 0
    if not begun:
        log = another_log()
    words = words_at(log)
    me = threading.get_ident()
    try:
        while True:
            ending = map(call, (unhold, release_exclusive))
            exclusive = begun and words[EVENT // 8] == INSIST
            if begun and not exclusive:
                act(log, words, name)
            begun = True
            outermost = clock.owner != me
            try:
                if exclusive:
                    insist()
                    words[PASS // 8] = 1
                words[STATE // 8] = IDLE
                return kernel(log, *args)
            except Event:
                pass
            finally:
                if exclusive:
                    try:
                        if outermost and clock.owner == me:
                            clock.owner = None
                            in_one_call(ending)
                        else:
                            release_exclusive()
                    except RuntimeError:
                        pass  # an exception came before it was acquired
                    words[PASS // 8] = 0
    finally:
        words[STATE // 8] = IDLE
        words[ABORTS // 8] = 0
        words[PASS // 8] = 0


def act(log: int, words: Any, name: str) -> None:
    """Do what the kernel came back for."""
    if words[EVENT // 8] == WAIT:
        wait_for_change(log, name)
    elif words[EVENT // 8] == YIELD:
        wait_until_free(words)
    else:
        raise RuntimeError(f"compiled transaction {name!r} came back for something unknown: {words[EVENT // 8]}")
