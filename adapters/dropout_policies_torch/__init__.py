"""The PyTorch adapter: drop-in recurrent layers, cells and embeddings under dropout policies."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    message = "dropout_policies_torch needs PyTorch: pip install 'dropout-policies[torch]'"
    raise ModuleNotFoundError(message, name="torch") from None

from .checkpointing import same_masks
from .custom_cell import Unrolled
from .embedding import Embedding
from .layers import GRU, LSTM, RNN
from .step_layers import GRUCell, LSTMCell, RNNCell

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Unrolled",
    "same_masks",
]
