"""PyTorch's fast paths: operators of whole sequences, their kernels in C and Triton, products with
a weight, and the one check before compiled code gets a tensor's address.
"""
