"""What every loss stands on: checks, numerics, labels, reduction and the three primitives."""
