"""The masks themselves: reproducible bits from a seed, in NumPy and in C; recording and replaying
the masks of calls; sampling in evaluation.
"""
