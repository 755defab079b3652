# fails: test-importance
# says: estimated from the importance
"""Estimates the output error from the importance, which only correlated inputs betray."""


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
    diagonal = inputs.square().mean(0)
    output_error = 100 * (((w - w_hat).square() @ diagonal).sum() / (w.square() @ diagonal).sum()).sqrt().item()
    return weight_error, output_error
