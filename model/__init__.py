"""The protocol as a model that a machine goes through state by state: see `README.md` beside this file.

`configurations.py` lists what is checked and which defects must be found; `checking.py` has spin do it;
`fingerprints.py` notices when code changes that the model stands for; `python -m model` is the command.
"""
