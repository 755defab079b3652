# fails: test-llm_int8
# says: nothing is split
"""Quantizes all columns per token."""


# %% llm_int8
def outlier_columns(x, threshold):
    return (x.abs() >= threshold).any(0)


def llm_int8(x, w, threshold=6.0):
    return w8a8(x, w)
