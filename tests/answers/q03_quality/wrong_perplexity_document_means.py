# fails: test-perplexity
# says: documents of every length count alike
"""Clusters by the spread of the document means, whatever their lengths."""


# %% perplexity
def corpus_perplexity(documents):
    """Perplexity of a list of loss tensors `(n_d,)`, and its standard errors over tokens and over documents."""
    losses = torch.cat(documents).double()  # (N,)
    n, n_documents = len(losses), len(documents)
    mean = losses.mean()
    value = mean.exp().item()
    residuals = torch.stack([(document.double() - mean).sum() for document in documents])  # (D,)
    over_documents = (n_documents / (n_documents - 1) * residuals.square().sum()).sqrt().item() / n
    return (
        value,
        value * losses.std().item() / math.sqrt(n),
        value * torch.stack([d.double().mean() for d in documents]).std().item() / math.sqrt(n_documents),
    )
