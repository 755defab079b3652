# fails: test-seconds, test-crossover
# says: count as one operation
"""Counts a multiplication and an addition as one operation."""


# %% crossover
def step_seconds(params, batch, bits, peak, bandwidth, kv=0.0, tokens=1):
    memory = (params * bits / 8 + batch * kv) / bandwidth
    return max(memory, params * batch * tokens / peak)


def activation_gain(params, batch, bits, peaks, bandwidth, kv=0.0, tokens=1):
    slow, fast = (step_seconds(params, batch, bits, peak, bandwidth, kv, tokens) for peak in peaks)
    return slow / fast


def crossover_batch(params, w4a16, w8a8, bandwidth, kv=0.0, tokens=1):
    for batch in range(1, 4097):
        first, second = (step_seconds(params, batch, *scheme, bandwidth, kv, tokens) for scheme in (w4a16, w8a8))
        if second < first:
            return batch
    return None
