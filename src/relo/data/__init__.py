"""From dataset folders to batches of clips: sequences, clip store, sampler, transforms, data module."""
