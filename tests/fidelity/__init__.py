"""How faithfully events are read: what peers read of the same real events, and what is read here.

`python -m tests.fidelity [FOLDER…] [--misses]` prints it. A peer's value counts once a record and
group, however many of its fields repeat it; it is found if the alert, or its details, has it.
Nothing is demanded the other way round: peers leave fields out. Of Panther, whose tests say only
which rule fires, no value can be compared; its samples are in tests/schemas/test_samples.py.

    fields.tsv   which group a peer's field belongs to, or why it is left out
    misses.tsv   the values that are not found, and why that is accepted; they count all the same
"""
