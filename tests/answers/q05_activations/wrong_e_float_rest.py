# fails: test-hybrid
# says: x stays in float
"""Never quantizes the activations."""


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
    rest = x[..., ~columns]
    x_scale = rest.abs().amax(-1, keepdim=True) / 127
    x_scale = torch.where(x_scale == 0, 1.0, x_scale)
    x_codes = (rest / x_scale).round()
    integer = (rest.double() @ codes.double().T) * scale.T
    return (integer + x[..., columns].double() @ kept.double().T).float()
