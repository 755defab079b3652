# fails: test-llm_int8
# says: the outlier columns read the int8 weight
"""Multiplies the outlier columns with the dequantized int8 weight."""


# %% llm_int8
def outlier_columns(x, threshold):
    return (x.abs() >= threshold).any(0)


def llm_int8(x, w, threshold=6.0):
    outlier = outlier_columns(x, threshold)
    q_w, s_w = int8_rows(w)
    y = x[:, outlier] @ (q_w * s_w)[:, outlier].T
    if outlier.all():
        return y
    q_x, s_x = int8_rows(x[:, ~outlier])
    return y + s_x * (q_x @ q_w[:, ~outlier].T) * s_w.T
