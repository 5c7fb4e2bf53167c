"""A task toolkit whose state is transactional: the scheduler and background workers, built on `stm`.

The package is reserved: its scheduler is being built on `stm`, which this distribution holds complete.
"""
