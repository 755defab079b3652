# fails: test-crossover
# says: W8A8 becomes compute-bound
"""Takes the ridge of W8A8 for the crossover."""


# %% crossover
def step_seconds(params, batch, bits, peak, bandwidth, kv=0.0, tokens=1):
    memory = (params * bits / 8 + batch * kv) / bandwidth
    return max(memory, 2 * params * batch * tokens / peak)


def activation_gain(params, batch, bits, peaks, bandwidth, kv=0.0, tokens=1):
    slow, fast = (step_seconds(params, batch, bits, peak, bandwidth, kv, tokens) for peak in peaks)
    return slow / fast


def crossover_batch(params, w4a16, w8a8, bandwidth, kv=0.0, tokens=1):
    for batch in range(1, 4097):
        bits, peak = w8a8
        if 2 * params * batch * tokens / peak > (params * bits / 8 + batch * kv) / bandwidth:
            return batch
    return None
