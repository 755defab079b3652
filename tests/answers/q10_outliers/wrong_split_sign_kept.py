# fails: test-llm_int8
# says: the sign is not taken off
"""Looks for large positive values only."""


# %% llm_int8
def outlier_columns(x, threshold):
    return (x >= threshold).any(0)


def llm_int8(x, w, threshold=6.0):
    outlier = outlier_columns(x, threshold)
    y = x[:, outlier] @ w[:, outlier].T
    if outlier.all():
        return y
    (q_x, s_x), (q_w, s_w) = int8_rows(x[:, ~outlier]), int8_rows(w)
    return y + s_x * (q_x @ q_w[:, ~outlier].T) * s_w.T
