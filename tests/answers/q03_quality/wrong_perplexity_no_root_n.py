# fails: test-perplexity
# says: not divided by √N
"""Reports the spread of the losses, not the error of their mean."""


# %% perplexity
def corpus_perplexity(documents):
    """Perplexity of a list of loss tensors `(n_d,)`, and its standard errors over tokens and over documents."""
    losses = torch.cat(documents).double()  # (N,)
    n, n_documents = len(losses), len(documents)
    mean = losses.mean()
    value = mean.exp().item()
    residuals = torch.stack([(document.double() - mean).sum() for document in documents])  # (D,)
    over_documents = (n_documents / (n_documents - 1) * residuals.square().sum()).sqrt().item() / n
    return value, value * losses.std().item(), value * over_documents
