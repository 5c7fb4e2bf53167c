"""`python -m bench`: transactions against locks, measured on your machine, with what it takes to doubt the figures.

Promises. Every figure is a median over interleaved repeats (variant A, B, C, then A, B, C again), and its whole spread
is kept. Ratios are taken within one repeat, between runs that lie next to each other in time. Each run's invariant is
checked: a broken one ends the program with an error that names the workload, however good the figures look. A missed
bar is reported as missed, not hidden.
"""
