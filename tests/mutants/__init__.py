"""Planted bugs: does the suite notice when a guard is gone?

$ python -m tests.mutants             # every one: killed, or survived?
$ python -m tests.mutants circuit     # those whose name holds it
$ python -m tests.mutants --list

`planted.py` lists them: a bug, where it goes, and the tests that must find it. Each is planted in
a copy of the tree, never here. One that survives is a test that is missing.
"""
