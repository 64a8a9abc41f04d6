"""The audit of PyTorch modules: how one is called, run, read, and put back as it was."""
