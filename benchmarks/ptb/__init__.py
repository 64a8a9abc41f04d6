"""The Penn Treebank benchmark of Zaremba et al. (2014)."""
