"""How long a program waits for its first compiled transaction: for the tier and a first array, and then for the call.

The interpreter's own start, and `import stm`, come before the clock starts.
"""

import json
import sys
import time

import stm  # noqa: F401


def move(accounts, source, target):  # type: ignore[no-untyped-def]
    accounts[source] -= 1
    accounts[target] += 1


def main() -> int:
    began = time.perf_counter()
    from stm import compiled

    accounts = compiled.TArray([10, 10])
    loaded = time.perf_counter()
    transfer = compiled.transaction(move)
    transfer(accounts, 0, 1)
    called = time.perf_counter()
    figures = {"load": loaded - began, "call": called - loaded, "balances": accounts.to_numpy().tolist()}
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
