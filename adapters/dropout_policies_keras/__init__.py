"""The Keras adapter: drop-in recurrent layers and embeddings under dropout policies."""

from .embedding import Embedding
from .layers import GRU, LSTM, RNN, SimpleRNN

__all__ = ["GRU", "LSTM", "RNN", "Embedding", "SimpleRNN"]
