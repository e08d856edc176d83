"""Training with Lightning: the module, callbacks, monitoring and figures."""
