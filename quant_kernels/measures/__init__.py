"""Measures of a model or a function: perplexity, peak memory."""
