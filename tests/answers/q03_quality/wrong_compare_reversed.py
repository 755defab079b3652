# fails: test-compare
# says: p is taken from the quantized model
"""Takes the divergence of the base from the quantized model."""


# %% compare
def compare_logits(base, other, targets):
    """KL divergence, top-1 agreement and change of probability of `other` against `base`, logits `(n, V)`."""
    log_q, log_p = base.double().log_softmax(-1), other.double().log_softmax(-1)  # (n, V)
    p = log_p.exp()
    divergence = torch.where(p == 0, 0, p * (log_p - log_q)).sum(-1)  # (n,)
    same_top = base.argmax(-1) == other.argmax(-1)
    own = targets.unsqueeze(-1)
    delta_p = (p.gather(-1, own) - log_q.gather(-1, own).exp()).squeeze(-1)  # (n,)
    return {
        "kl_divergence": divergence.mean().item(),
        "kl_99": float(np.percentile(divergence.numpy(), 99)),
        "same_top": same_top.double().mean().item(),
        "delta_p_rms": delta_p.square().mean().sqrt().item(),
        "delta_p_percentiles": np.percentile(delta_p.numpy(), [1, 5, 50, 95, 99]).tolist(),
    }
