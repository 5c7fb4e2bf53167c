"""What a transaction called from the user's own compiled code asks Python to do, as it can't return there itself.

Such a call has no way back into its caller's loop, so the machine code calls Python instead: to sleep after `retry()`,
to wait for an exclusive transaction, to become exclusive. An exception that comes up meanwhile (Ctrl-C) is kept, and
leaves the user's function as soon as machine code goes on.
"""

from __future__ import annotations

import ctypes
import threading
from operator import call
from typing import Any, Final

from stm.clock import acquire, acquire_politely, clock, enter_exclusive, release, release_exclusive, unhold
from stm.compiled.joining import ArrayPart
from stm.compiled.log import HEADER, INSIST, INTERRUPT, PASS, RELENT, WAIT, YIELD
from stm.compiled.runtime import Callback, own, take_up, word
from stm.execution import become_exclusive
from stm.transaction import in_one_call
from stm.waiting import sleep


def words_at(address: int) -> Any:
    """The words of the log at an address, as Python sees them."""
    return (ctypes.c_int64 * (HEADER // 8)).from_address(address)


def answer(address: int, event: int) -> None:
    """Do what `event` asks for on account of the log at an address."""
    try:
        respond(address, words_at(address), event)
    except BaseException as error:
        own().pending = error
        words_at(address)[INTERRUPT // 8] = 1


def respond(address: int, words: Any, event: int) -> None:
    if own().pending is not None:  # and the user's code has swallowed it
        words[INTERRUPT // 8] = 1
    elif event == WAIT:
        if words[PASS // 8] == 1:
            words[PASS // 8] = 0
            relent()
        wait_for_change(address)
    elif event == YIELD:
        wait_until_free(words)
    elif event == INSIST:
        insist()
        words[PASS // 8] = 1
    elif event == RELENT:
        if words[PASS // 8] == 1:
            relent()
        words[PASS // 8] = 0


class Reads(ArrayPart):
    """What a compiled transaction has read, as something to wait for."""

    __slots__ = ()

    def __init__(self, address: int) -> None:
        self.address = address
        self.words = words_at(address)
        self.arrays = {}
        self._waiters = None


def wait_for_change(address: int, name: str | None = None) -> None:
    """Sleep until something changes that the log's attempt has read."""
    part = Reads(address)
    try:
        sleep(part.as_reads(), None, name)
    finally:
        part.slept()


def wait_until_free(words: Any) -> None:
    """Wait for the end of an exclusive transaction that keeps a commit off."""
    if threading.get_ident() in (clock.owner, clock.forker):
        words[PASS // 8] = 2  # it is this thread's own: called from what interrupted it, or from its hooks
        return
    enter_exclusive()
    try:
        clock.unhold()  # nobody is exclusive now: if the word says so, its owner came to an untimely end
    finally:
        release_exclusive()
    try:
        if not acquire(False):
            acquire_politely()
        word.thaw()  # likewise, nobody is about to fork
    finally:
        try:
            release()
        except RuntimeError:
            pass


def insist() -> None:
    """Become exclusive. `relent` must follow, also if this raises."""
    enter_exclusive()
    become_exclusive(threading.get_ident())
    word.hold()


def relent() -> None:
    """Be exclusive no more."""
    ending = map(call, (unhold, release_exclusive))
    try:
        if clock.owner == threading.get_ident():
            clock.owner = None
            in_one_call(ending)
        else:
            release_exclusive()
    except RuntimeError:
        pass


_callback: Final = Callback(answer)
take_up(ctypes.cast(_callback, ctypes.c_void_p).value or 0)
