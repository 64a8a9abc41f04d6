"""The Keras adapter: drop-in recurrent layers, cells and embeddings under dropout policies."""

from . import embedding as _embedding
from .conv_layers import ConvLSTM1D, ConvLSTM2D, ConvLSTM3D
from .embedding import Embedding
from .layers import GRU, LSTM, RNN, SimpleRNN
from .step_layers import GRUCell, LSTMCell, SimpleRNNCell
from .time_distributed import TimeDistributed

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "ConvLSTM1D",
    "ConvLSTM2D",
    "ConvLSTM3D",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "SimpleRNN",
    "SimpleRNNCell",
    "TimeDistributed",
]

if hasattr(_embedding, "ReversibleEmbedding"):  # not every Keras has it
    from .embedding import ReversibleEmbedding

    __all__ += ["ReversibleEmbedding"]
