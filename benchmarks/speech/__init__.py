"""The speech benchmark: an LSTM acoustic model on AN4."""
