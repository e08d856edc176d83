"""One reader a dataset, each a list of `Sequence`; the contract is in `base`."""
