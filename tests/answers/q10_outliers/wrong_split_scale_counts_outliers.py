# fails: test-llm_int8
# says: the scale of a token counts the outlier columns
"""Takes the scales of the tokens before the columns are split."""


# %% llm_int8
def outlier_columns(x, threshold):
    return (x.abs() >= threshold).any(0)


def llm_int8(x, w, threshold=6.0):
    outlier = outlier_columns(x, threshold)
    (q_x, s_x), (q_w, s_w) = int8_rows(x), int8_rows(w)
    return x[:, outlier] @ w[:, outlier].T + s_x * (q_x[:, ~outlier] @ q_w[:, ~outlier].T) * s_w.T
