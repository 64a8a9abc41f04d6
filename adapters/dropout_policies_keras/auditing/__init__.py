"""The audit of Keras layers and models: how a layer is called, run and restored."""
