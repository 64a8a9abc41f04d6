"""The Keras adapter: drop-in recurrent layers, cells and embeddings under dropout policies."""

from .embedding import Embedding
from .layers import GRU, LSTM, RNN, SimpleRNN
from .step_layers import GRUCell, LSTMCell, SimpleRNNCell

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "SimpleRNN",
    "SimpleRNNCell",
]
