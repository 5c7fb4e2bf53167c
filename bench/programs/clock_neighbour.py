"""A process that runs transactions over `TVar`s, some at a time, when it is told to: alone, or with `loaded` as its
argument, beside the compiled tier, after an array was made and a compiled transaction has run.

Each line of standard input is `transfer N` or `mixed N`; each answer is a line with the seconds that N of them took. At
the end of the input comes a line of JSON with what the variables and arrays hold.
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from stm import TVar, atomically

ACCOUNTS = 16
OPENING_BALANCE = 1_000


@atomically
def transfer(source: TVar[int], target: TVar[int]) -> None:
    source.set(source.get() - 1)
    target.set(target.get() + 1)


@atomically
def mixed(count: TVar[int], accounts: Any, source: int, target: int) -> None:
    accounts[source] -= 1
    accounts[target] += 1
    count.set(count.get() + 1)


def compiled_move(accounts, source, target):  # type: ignore[no-untyped-def]
    accounts[source] -= 1
    accounts[target] += 1


def timed(operation: Callable[..., object], operands: Sequence[tuple[Any, ...]], rounds: int) -> float:
    """Seconds that the operation takes on all operands, so many times over."""
    began = time.perf_counter()
    for _ in range(rounds):
        for some in operands:
            operation(*some)
    return time.perf_counter() - began


def main(arguments: Sequence[str]) -> int:
    variables = [TVar(OPENING_BALANCE) for _ in range(ACCOUNTS)]
    count = TVar(0)
    # Everybody once the giver and once the taker, so that a round changes no balance.
    ring = [(one, (one + 5) % ACCOUNTS) for one in range(ACCOUNTS)]
    operations: dict[str, tuple[Callable[..., object], list[tuple[Any, ...]]]] = {
        "transfer": (transfer, [(variables[source], variables[target]) for source, target in ring])
    }
    arrays = []
    if arguments == ["loaded"]:
        from stm import compiled

        accounts = compiled.TArray([OPENING_BALANCE] * ACCOUNTS)
        arrays.append(accounts)
        compiled.transaction(compiled_move)(accounts, 0, 1)
        compiled.transaction(compiled_move)(accounts, 1, 0)
        operations["mixed"] = mixed, [(count, accounts, source, target) for source, target in ring]
    elif arguments:
        print(f"not an argument: {arguments}", file=sys.stderr)
        return 2
    gc.collect()  # what the loading left behind; later collections are part of what is measured
    print(json.dumps(sorted(operations)), flush=True)
    for line in sys.stdin:
        name, number = line.split()
        print(timed(*operations[name], int(number) // ACCOUNTS), flush=True)
    held = [variable.peek() for variable in variables] + [value for array in arrays for value in array]
    print(json.dumps({"held": held, "mixed": count.peek(), "modules": "numba" in sys.modules}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
