"""Model folders and checkpoints: written, read, and taken from the public release."""
