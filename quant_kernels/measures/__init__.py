"""Measures of a model or a function: perplexity, divergence from a base, importance, errors, peak memory."""
