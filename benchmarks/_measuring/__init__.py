"""Variance, bias and time of gradients, and exact values to compare them with."""
