"""Marks for arguments of `.map` that are arrays, but no columns."""

from __future__ import annotations

from typing import Any

import numpy as np


class Constant:
    """An array that each row of `.map` is given whole."""

    __slots__ = ("values",)

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def for_thread(self) -> Any:
        return self.values


class Scratch:
    """Room to work in: a plain array that is private to the thread which runs a row.

    It holds zeros at first, and then what the thread's earlier rows, and attempts at this one, have left there.
    """

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: int | tuple[int, ...], dtype: Any = np.int64) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)

    def for_thread(self) -> Any:
        return np.zeros(self.shape, self.dtype)
