"""Transactions that several tests use: each is compiled once."""

import numpy as np
from numba import njit

from stm import check, compiled, retry
from stm.compiled.atomics import load_acquire, store_release


@compiled.transaction
def transfer(accounts, a, b, amount):
    if accounts[a] < amount:
        raise ValueError("overdrawn")
    accounts[a] -= amount
    accounts[b] += amount
    return accounts[a]


@compiled.transaction
def move(accounts, a, b, amount):
    accounts[a] -= amount
    accounts[b] += amount


@compiled.transaction
def take(stock, i):
    """Wait until there is one, and take it."""
    check(stock[i] > 0)
    stock[i] -= 1
    return stock[i]


@compiled.transaction
def put(stock, i, amount):
    stock[i] += amount


@compiled.transaction
def difference(pair):
    """0 in every consistent state; and no end, or a wrong address, in others."""
    steps = pair[0] - pair[1]
    table = np.zeros(1)
    while steps != 0:
        steps -= 1
        table[steps] = 1.0
    return pair[0] - pair[1]


@compiled.transaction
def raises_if_torn(pair):
    a = pair[0]
    for _ in range(50):
        pass
    if a != pair[1]:
        raise AssertionError("torn")
    return a


@compiled.transaction
def both(pair, amount):
    pair[0] += amount
    pair[1] += amount


@compiled.transaction
def total(array):
    result = 0
    for i in range(len(array)):
        result += array[i]
    return result


@compiled.transaction
def nothing_read(array):
    retry()


@njit(nogil=True)
def many_moves(accounts, rounds):
    """The user's own compiled loop over transactions."""
    n = len(accounts)
    for k in range(rounds):
        move(accounts, k % n, (k * 7 + 1) % n, 1)


@njit
def tell_and_wait(here):
    """`here` is the address of two words: it has begun; go on."""
    store_release(here, 1)
    spins = 0
    while load_acquire(here + 8) == 0 and spins < 10_000_000_000:
        spins += 1


@compiled.transaction
def add_late(array, here, reads, amount):
    """Adds to what it has read, if it `reads`, when it has been told to. `here` is as in `tell_and_wait`."""
    before = array[0] if reads else 0
    tell_and_wait(here)
    array[0] = before + amount
    return before


@compiled.transaction
def refuse_late(array, here, _row):
    """Raises if it has read a 0, when it has been told to go on; `here` is as in `tell_and_wait`."""
    before = array[0]
    tell_and_wait(here)
    if before == 0:
        raise ValueError("there was nothing")
    return before


@compiled.transaction
def differ_late(pair, here, _row):
    """The difference of the two, the second of which is read when told to; `here` is as in `tell_and_wait`."""
    first = pair[0]
    tell_and_wait(here)
    return pair[1] - first
