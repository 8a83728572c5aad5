"""Functions of tensors: what layers compute, without their weights. Imports no layer."""
