"""The audit of PyTorch modules: how a module is called, run, read and restored."""
