# fails: test-importance
# says: only the last batch
"""Begins anew with every batch."""


# %% importance
def importance(batches):
    """Return the mean squared input of each column, float32 `(columns,)`, of a list of float32 `(tokens, columns)`."""
    for batch in batches:
        result = batch.square().mean(0)
    return result


def two_errors(w, w_hat, batches):
    """Return the relative error of the weights and of the outputs of the layer, in percent, as floats."""
    w, w_hat = w.double(), w_hat.double()
    weight_error = 100 * ((w - w_hat).norm() / w.norm()).item()
    inputs = torch.cat(list(batches)).double()  # (all tokens, columns)
    output_error = 100 * ((inputs @ (w - w_hat).T).norm() / (inputs @ w.T).norm()).item()
    return weight_error, output_error
