# fails: test-seconds
# says: waits for memory has none
"""Lets 8-bit activations halve the bytes too."""


# %% crossover
def step_seconds(params, batch, bits, peak, bandwidth, kv=0.0, tokens=1):
    memory = (params * bits / 8 + batch * kv) / bandwidth
    return max(memory, 2 * params * batch * tokens / peak)


def activation_gain(params, batch, bits, peaks, bandwidth, kv=0.0, tokens=1):
    slow = step_seconds(params, batch, bits, peaks[0], bandwidth, kv, tokens)
    return slow / step_seconds(params, batch, bits / 2, peaks[1], bandwidth, kv / 2, tokens)


def crossover_batch(params, w4a16, w8a8, bandwidth, kv=0.0, tokens=1):
    for batch in range(1, 4097):
        first, second = (step_seconds(params, batch, *scheme, bandwidth, kv, tokens) for scheme in (w4a16, w8a8))
        if second < first:
            return batch
    return None
