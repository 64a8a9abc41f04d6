"""A Keras layer under audit: how it is called, and what its noise depends on."""
