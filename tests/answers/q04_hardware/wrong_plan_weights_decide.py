# fails: test-plan
# says: weights alone decide
"""Multiplies in the weights' format: INT4 weights, INT4 arithmetic."""


# %% plan
def plan(weights, activations, target):
    usable = [name for name in target["multiplies"] if name not in target["no_kernel"] and weights in HOLDS[name]]
    if not usable:
        raise ValueError(f"the target cannot multiply {weights} weights with {activations} activations")
    math_type = min(usable, key=lambda name: (BITS[name], name[:2] != weights[:2]))
    feed = "as they are"
    if math_type == "INT8" and target["operands"].startswith("u8"):
        largest = {"INT8": 255, "INT4": 15}[weights]  # with the offset
        saturates = target["operands"] != "u8 × s8" and 2 * largest * 127 > 32767
        feed = "sign" if saturates else "offset"
    return math_type, feed


def best(checkpoints, target, bound):
    ranks = {}
    for name, (weights, activations) in checkpoints.items():
        try:
            math_type, _ = plan(weights, activations, target)
        except ValueError:
            continue
        rank = BITS[weights], BITS[math_type]
        ranks[name] = rank if bound == "memory" else rank[::-1]
    if not ranks:
        raise ValueError("the target runs none of these checkpoints")
    return min(ranks, key=ranks.get)
