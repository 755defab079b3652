# fails: test-conventions
# says: it is the first half of windows of C
"""Takes the first half of long windows for windows of half the length."""


# %% conventions
def conventions(losses, n_words):
    n, size = losses.shape
    half = size // 2

    def chosen(windows):
        return torch.cat(
            [losses[range(scored, stop), range(scored - start, stop - start)] for start, scored, stop in windows]
        )

    def disjoint(length, skipped):
        return chosen([(s, s + skipped, s + length) for s in range(0, n - length + 1, length)])

    sliding = [(0, 1, size)] + [(done - half, done, min(done + half, n)) for done in range(size, n, half)]
    return {
        "disjoint": disjoint(size, 1).mean().exp().item(),
        "half context": chosen([(s, s + 1, s + half) for s in range(0, n - size + 1, size)]).mean().exp().item(),
        "second half": disjoint(size, half + 1).mean().exp().item(),
        "per word": (chosen(sliding).sum() / n_words).exp().item(),
    }
