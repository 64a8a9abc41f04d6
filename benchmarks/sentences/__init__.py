"""What tasks that write sentences have in common: words, batches, decoding, and its scores."""
