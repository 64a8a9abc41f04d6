"""The Keras adapter: drop-in recurrent layers, cells and embeddings under dropout policies."""

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as error:
    if error.name == "keras":
        message = "dropout_policies_keras needs Keras: pip install 'dropout-policies[keras]'"
    elif error.name not in ("tensorflow", "jax", "torch"):
        raise
    else:
        message = (
            f"Keras needs its backend, {error.name}: install it, or choose another one with "
            f"KERAS_BACKEND=torch, jax or tensorflow"
        )
    raise ModuleNotFoundError(message, name=error.name) from None

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
