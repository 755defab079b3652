# fails: test-llm_int8
# says: one outlier sends the whole product to float
"""An if/else on the whole tensor: with an outlier nothing is quantized."""


# %% llm_int8
def outlier_columns(x, threshold):
    return (x.abs() >= threshold).any(0)


def llm_int8(x, w, threshold=6.0):
    if outlier_columns(x, threshold).any():
        return x @ w.T
    return w8a8(x, w)
