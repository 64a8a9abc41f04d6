"""The audit of Keras layers and models: how one is called, run, and put back as it was."""
