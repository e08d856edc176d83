"""Encoders: template and search images to a feature map; the contract is in `base`."""
