# fails: test-llm_int8
# says: each token splits off its own columns
"""Splits single values, and not columns for all tokens."""


# %% llm_int8
def outlier_columns(x, threshold):
    return (x.abs() >= threshold).any(0)


def llm_int8(x, w, threshold=6.0):
    large = x.abs() >= threshold
    return (x * large) @ w.T + w8a8(x * ~large, w)
