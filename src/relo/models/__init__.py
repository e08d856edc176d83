"""The network: encoders, temporal propagators, heads, and what assembles them."""
