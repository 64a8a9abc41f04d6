"""Recurrent layers over whole sequences of PyTorch tensors, under given masks.

The equations of the cells, operators that run all steps at once, their kernels in C and Triton, and
the one check before compiled code gets a tensor's address. Two adapters use this package: that of
PyTorch, and that of Keras on its torch backend.
"""
