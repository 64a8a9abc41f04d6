"""The translation model in each framework: stock layers, and a policy that is applied to them."""
