"""Translation: an LSTM encoder and decoder from English to French, with and without dropout."""
