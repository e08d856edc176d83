"""Networks on disk: `weights` reads and writes models, `released` those of the public release, from `states` (tensors).

`inert_pickle` reads files of others without running them, `plugin` builds the parts that a config names.
"""
