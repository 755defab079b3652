# fails: test-q4_0, test-cost
# says: x stays in float
"""Decodes the weights and multiplies floats, as llama.cpp is often said to do."""


# %% q4_0_linear
def q8_0_blocks(x):
    blocks = x.unflatten(-1, (-1, 32))
    d = blocks.abs().amax(-1, keepdim=True) / 127
    codes = torch.where(d == 0, 0.0, blocks / d).round().to(torch.int8)
    return codes.flatten(-2), d.squeeze(-1).half()


def q4_0_linear(x, w_codes, w_d):
    q_x = x.unflatten(-1, (-1, 32))
    q_w = w_codes.unflatten(-1, (-1, 32)).float() - 8
    dots = torch.einsum("tbi,mbi->tmb", q_x, q_w)
    return (dots * w_d.float()).sum(-1)


def cost_of_q8_0(x, w_codes, w_d):
    weight = w_d.double().repeat_interleave(32, -1) * (w_codes.double() - 8)
    exact = x.double() @ weight.T
    return (100 * (q4_0_linear(x, w_codes, w_d) - exact).norm() / exact.norm()).item()
