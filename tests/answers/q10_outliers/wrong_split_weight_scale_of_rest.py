# fails: test-llm_int8
# says: the scales of w leave out the outlier columns
"""Quantizes the weight after the split, as if one could wait for the tokens."""


# %% llm_int8
def outlier_columns(x, threshold):
    return (x.abs() >= threshold).any(0)


def llm_int8(x, w, threshold=6.0):
    outlier = outlier_columns(x, threshold)
    y = x[:, outlier] @ w[:, outlier].T
    return y if outlier.all() else y + w8a8(x[:, ~outlier], w[:, ~outlier])
