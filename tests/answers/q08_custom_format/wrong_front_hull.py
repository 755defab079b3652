# fails: test-front
# says: convex hull
"""Takes the convex hull."""


# %% front
def gap_to_bound(x, approximation, bits):
    """Return how many dB the mean squared error lies above the Gaussian rate-distortion bound at `bits` per weight."""
    x = x.double()
    distortion = (x - approximation.double()).square().mean() / x.square().mean()
    return (10 * torch.log10(distortion * 4.0**bits)).item()


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
    hull = []
    for p in sorted(kept, key=lambda point: point[1]):
        while len(hull) > 1 and (hull[-1][2] - hull[-2][2]) * (p[1] - hull[-2][1]) >= (p[2] - hull[-2][2]) * (
            hull[-1][1] - hull[-2][1]
        ):
            hull.pop()
        hull.append(p)
    return [p[0] for p in hull]
