# fails: test-importance
# says: errors of single tokens are averaged
"""Averages the relative errors of the tokens."""


# %% importance
def importance(batches):
    """Return the mean squared input of each column, float32 `(columns,)`, of a list of float32 `(tokens, columns)`."""
    squares = sum(batch.double().square().sum(0) for batch in batches)
    return (squares / sum(len(batch) for batch in batches)).float()


def two_errors(w, w_hat, batches):
    """Return the relative error of the weights and of the outputs of the layer, in percent, as floats."""
    w, w_hat = w.double(), w_hat.double()
    weight_error = 100 * ((w - w_hat).norm() / w.norm()).item()
    inputs = torch.cat(list(batches)).double()  # (all tokens, columns)
    output_error = 100 * ((inputs @ (w - w_hat).T).norm(dim=1) / (inputs @ w.T).norm(dim=1)).mean().item()
    return weight_error, output_error
