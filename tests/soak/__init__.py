"""A soak: random transactions in both tiers, under faults and signals, with their histories checked.

    python -m tests.soak --minutes 10            one line of figures in the end; status 1 if anything was wrong
    python -m tests.soak --minutes 1 --seed 7    the same choices again (threads interleave as they like)

It goes in rounds of a second or two. In each, some threads run transactions over variables, and one over elements, as
compiled rows; the main thread does the same under a timer whose handler raises. In some rounds a `History` records; in
some, exceptions are injected at named points of the protocol. When the threads have come to their end, the books are
looked at: what is moved to and fro must be there still (*conservation*), and what was recorded must be explicable
(opacity).

- `variables`: the transactions over `TVar`s, collections and synchronisers, and what must always be true of them.
- `elements`: compiled rows, and transactions that move things from one tier to the other.
- `trouble`: signals, and injected faults.
- `memory`: what of it the process has.
"""
