"""PyTorch's fast paths: whole sequences as operators, their steps in C and Triton, products with a
weight, and the one gate before compiled code.
"""
