"""Programs that workloads run in processes of their own; each writes what it measured to its standard output, as JSON.

They import nothing of the harness, so that what they load, and when, is what their docstrings say.
"""
