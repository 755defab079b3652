# fails: test-seconds, test-crossover
# says: bits are taken for bytes
"""Forgets that eight bits are a byte."""


# %% crossover
def step_seconds(params, batch, bits, peak, bandwidth, kv=0.0, tokens=1):
    memory = (params * bits + batch * kv) / bandwidth
    return max(memory, 2 * params * batch * tokens / peak)


def activation_gain(params, batch, bits, peaks, bandwidth, kv=0.0, tokens=1):
    slow, fast = (step_seconds(params, batch, bits, peak, bandwidth, kv, tokens) for peak in peaks)
    return slow / fast


def crossover_batch(params, w4a16, w8a8, bandwidth, kv=0.0, tokens=1):
    for batch in range(1, 4097):
        first, second = (step_seconds(params, batch, *scheme, bandwidth, kv, tokens) for scheme in (w4a16, w8a8))
        if second < first:
            return batch
    return None
