# fails: test-front
# says: rms error is taken
"""Takes the rms error for its square."""


# %% front
def gap_to_bound(x, approximation, bits):
    """Return how many dB the mean squared error lies above the Gaussian rate-distortion bound at `bits` per weight."""
    x = x.double()
    distortion = (x - approximation.double()).square().mean() / x.square().mean()
    return (10 * torch.log10(distortion.sqrt() * 4.0**bits)).item()


def entropy_bits(codes):
    """Return the entropy of the codes' shares, in bits per code."""
    _, counts = codes.unique(return_counts=True)
    p = counts.double() / codes.numel()
    return -(p * p.log2()).sum().item() + 0.0


def pareto_front(points):
    """Return the names of the points (name, bits, distortion) that no other dominates, by ascending bits."""

    def dominated(bits, distortion):
        return any(b <= bits and d <= distortion and (b, d) != (bits, distortion) for _, b, d in points)

    kept = [point for point in points if not dominated(*point[1:])]
    return [name for name, _, _ in sorted(kept, key=lambda point: point[1])]
