# fails: test-llm_int8
# says: the outlier columns are dropped
"""Leaves the outlier columns out."""


# %% llm_int8
def outlier_columns(x, threshold):
    return (x.abs() >= threshold).any(0)


def llm_int8(x, w, threshold=6.0):
    outlier = outlier_columns(x, threshold)
    (q_x, s_x), (q_w, s_w) = int8_rows(x * ~outlier), int8_rows(w)
    return s_x * (q_x @ q_w.T) * s_w.T
