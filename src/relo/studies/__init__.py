"""Ablations: the rows of a study trained and evaluated with several seeds, and compared sequence by sequence."""
