"""A process that runs transfers between `TVar`s, some at a time, when it is told to: with statistics that were never on
in it, or, with `counted` as its argument, with statistics that were on before.

Each line of standard input is `transfer N`, or `counted N`: with statistics on meanwhile. Each answer is a line with
the seconds that N of them took. At the end of the input comes a line of JSON with what the variables hold, and how many
transfers were counted.
"""

import gc
import json
import sys
from collections.abc import Sequence

from bench.programs.clock_neighbour import ACCOUNTS, OPENING_BALANCE, timed, transfer
from stm import TVar


def main(arguments: Sequence[str]) -> int:
    if arguments not in ([], ["counted"]):
        print(f"not an argument: {arguments}", file=sys.stderr)
        return 2
    variables = [TVar(OPENING_BALANCE) for _ in range(ACCOUNTS)]
    # Everybody once the giver and once the taker, so that a round changes no balance.
    ring = [(variables[one], variables[(one + 5) % ACCOUNTS]) for one in range(ACCOUNTS)]
    counted = 0

    def count(rounds: int) -> float:
        nonlocal counted
        from stm import stats

        with stats.enabled():
            seconds = timed(transfer, ring, rounds)
        counted += stats.snapshot()["transfer"].commits
        return seconds

    if arguments:
        count(1)
    gc.collect()
    print("ready", flush=True)
    for line in sys.stdin:
        name, number = line.split()
        rounds = int(number) // ACCOUNTS
        print(count(rounds) if name == "counted" else timed(transfer, ring, rounds), flush=True)
    held = [variable.peek() for variable in variables]
    print(json.dumps({"held": held, "counted": counted, "loaded": "stm.stats" in sys.modules}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
