"""The Keras adapter: drop-in recurrent layers that run under a dropout policy."""

from .layers import LSTM

__all__ = ["LSTM"]
