"""How long a policy takes, and how much memory, beside the stock layers."""
