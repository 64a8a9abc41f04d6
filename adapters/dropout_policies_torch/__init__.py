"""The PyTorch adapter: drop-in recurrent layers that run under a dropout policy."""

from .layers import LSTM, LSTMCell

__all__ = ["LSTM", "LSTMCell"]
