"""Public models with recurrent layers: what `apply` does with each, with and without an example."""
