# fails: test-hybrid
# says: must not depend on the other tokens
"""Keeps the branch on the whole batch."""


# %% hybrid
def outlier_columns(batches, threshold):
    tokens = torch.cat([batch.reshape(-1, batch.shape[-1]) for batch in batches])
    return (tokens.abs() >= threshold).any(0)


def split_weight(weight, columns):
    rest = weight[:, ~columns]
    scale = rest.abs().amax(1, keepdim=True) / 127
    scale = torch.where(scale == 0, 1.0, scale)
    return (rest / scale).round().to(torch.int8), scale, weight[:, columns]


def hybrid_linear(x, columns, codes, scale, kept):
    if x.abs().max() / x.abs().mean() > 20:
        return x[..., ~columns] @ (codes * scale).T + x[..., columns] @ kept.T
    rest = x[..., ~columns]
    x_scale = rest.abs().amax(-1, keepdim=True) / 127
    x_scale = torch.where(x_scale == 0, 1.0, x_scale)
    x_codes = (rest / x_scale).round()
    integer = (x_codes.double() @ codes.double().T) * x_scale * scale.T
    return (integer + x[..., columns].double() @ kept.double().T).float()
