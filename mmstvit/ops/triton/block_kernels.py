"""Triton kernels of all that is around the matrix products of a block, launched by :mod:`mmstvit.ops.triton.fused`.

Every map is read and written once, in its own dtype; everything is computed in fp32. Sums over the map use no atomics,
so that results repeat bit for bit: every program writes sums of its own to ``parts``, which :func:`sum_kernel` adds.

Letters: B batch · C channels · H, W sides of the map · T tokens of a tile. Maps are contiguous (B, H, W, C). Weights of
a depthwise convolution are (C, 9). Offsets are 64 bits wide wherever they grow with the batch or the map.
"""

import triton
import triton.language as tl

# Sides change from image to image; compiling again for every multiple of 16 among them gains nothing.
_jit = triton.jit(do_not_specialize=['height', 'width', 'tokens', 'programs'])


@triton.jit
def _load_shifted(grid, b, row, column, c, height, width, C: tl.constexpr):
    """Load the tokens of a row at some columns, zeros outside of the map: (T, BLOCK_C) in fp32."""
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    at = ((b * height + row) * width + column)[:, None] * C + c[None, :]
    return tl.load(grid + at, mask=inside[:, None] & (c < C)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _load_channels(vector, c, C: tl.constexpr, STRIDE: tl.constexpr = 1):
    return tl.load(vector + c * STRIDE, mask=c < C, other=0.0).to(tl.float32)


@_jit
def dwconv_kernel(
    x, weight, bias, out, gamma, beta, normed, mean, rstd, height, width, eps,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
    RESIDUAL: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """Compute dwconv3x3(x) + bias, with RESIDUAL plus x. Grid: (strips of ROWS × BLOCK_W tokens, channel blocks).

    A program walks down its strip with the sums of three rows, so that it loads every row of the map once from memory.
    With NORM all channels are in one block, and the LayerNorm of the result, its means and deviations are written, too.
    """
    strips = tl.cdiv(height, ROWS)
    blocks = tl.cdiv(width, BLOCK_W)
    pid = tl.program_id(0)
    column = pid % blocks * BLOCK_W + tl.arange(0, BLOCK_W)
    top = pid // blocks % strips * ROWS
    b = (pid // blocks // strips).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    above = tl.zeros([BLOCK_W, BLOCK_C], tl.float32)  # the sum of the row above the one that is loaded
    here = tl.zeros([BLOCK_W, BLOCK_C], tl.float32)
    for row in range(top - 1, top + ROWS + 1):
        below = tl.zeros([BLOCK_W, BLOCK_C], tl.float32)
        for k in tl.static_range(3):
            tile = _load_shifted(x, b, row, column + k - 1, c, height, width, C)
            below += tile * _load_channels(weight + k, c, C, 9)[None, :]
            here += tile * _load_channels(weight + 3 + k, c, C, 9)[None, :]
            above += tile * _load_channels(weight + 6 + k, c, C, 9)[None, :]
            if RESIDUAL and k == 1:
                here += tile
        done = row - 1
        inside = (done >= top) & (done < top + ROWS) & (done < height) & (column < width)
        token = (b * height + done) * width + column
        mask = inside[:, None] & (c < C)[None, :]
        at = token[:, None] * C + c[None, :]
        # Rounded before the norm: the backward pass reads what is stored.
        result = (above + _load_channels(bias, c, C)[None, :]).to(out.dtype.element_ty)
        tl.store(out + at, result, mask=mask)
        if NORM:
            result = tl.where(mask, result.to(tl.float32), 0.0)
            center = tl.sum(result, 1) / C
            result = tl.where(mask, result - center[:, None], 0.0)
            scale = 1 / tl.sqrt(tl.sum(result * result, 1) / C + eps)
            result *= scale[:, None] * _load_channels(gamma, c, C)[None, :]
            result += _load_channels(beta, c, C)[None, :]
            tl.store(normed + at, result, mask=mask)
            tl.store(mean + token, center, mask=inside)
            tl.store(rstd + token, scale, mask=inside)
        above = here
        here = below


@_jit
def dwconv_backward_kernel(
    grad, x, weight, out, parts, height, width,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
    RESIDUAL: tl.constexpr, GELU: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of :func:`dwconv_kernel`, with GELU of gelu(x). Grid: (strips of rows, channel blocks).

    The gradient of a weight is Σ_p grad[p] h[p + k] = Σ_q grad[q - k] h[q], so that the nine values of ``grad`` that
    make the gradient of a token serve the weights, too. ``parts`` (programs, 11, C) gets sums for nine weights, the
    bias and, the gradient of a bias added to x, the result.
    """
    strips = tl.cdiv(height, ROWS)
    blocks = tl.cdiv(width, BLOCK_W)
    pid = tl.program_id(0)
    top = pid % strips * ROWS
    b = (pid // strips).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    w0 = _load_channels(weight + 0, c, C, 9)[None, :]
    w1 = _load_channels(weight + 1, c, C, 9)[None, :]
    w2 = _load_channels(weight + 2, c, C, 9)[None, :]
    w3 = _load_channels(weight + 3, c, C, 9)[None, :]
    w4 = _load_channels(weight + 4, c, C, 9)[None, :] + (1.0 if RESIDUAL else 0.0)
    w5 = _load_channels(weight + 5, c, C, 9)[None, :]
    w6 = _load_channels(weight + 6, c, C, 9)[None, :]
    w7 = _load_channels(weight + 7, c, C, 9)[None, :]
    w8 = _load_channels(weight + 8, c, C, 9)[None, :]
    zeros = tl.zeros([BLOCK_W, BLOCK_C], tl.float32)
    s0, s1, s2, s3, s4, s5, s6, s7, s8 = zeros, zeros, zeros, zeros, zeros, zeros, zeros, zeros, zeros
    bias, total = zeros, zeros
    for i in range(0, tl.minimum(ROWS, height - top) * blocks):
        row = top + i // blocks
        column = i % blocks * BLOCK_W + tl.arange(0, BLOCK_W)
        h = _load_shifted(x, b, row, column, c, height, width, C)
        if GELU:
            cdf = 0.5 * (1.0 + tl.erf(h * 0.7071067811865476))
            slope = cdf + h * tl.exp(-0.5 * h * h) * 0.3989422804014327
            h = h * cdf
        g = _load_shifted(grad, b, row + 1, column + 1, c, height, width, C)
        s0 += g * h
        result = g * w0
        g = _load_shifted(grad, b, row + 1, column, c, height, width, C)
        s1 += g * h
        result += g * w1
        g = _load_shifted(grad, b, row + 1, column - 1, c, height, width, C)
        s2 += g * h
        result += g * w2
        g = _load_shifted(grad, b, row, column + 1, c, height, width, C)
        s3 += g * h
        result += g * w3
        g = _load_shifted(grad, b, row, column, c, height, width, C)
        s4 += g * h
        result += g * w4
        bias += g
        g = _load_shifted(grad, b, row, column - 1, c, height, width, C)
        s5 += g * h
        result += g * w5
        g = _load_shifted(grad, b, row - 1, column + 1, c, height, width, C)
        s6 += g * h
        result += g * w6
        g = _load_shifted(grad, b, row - 1, column, c, height, width, C)
        s7 += g * h
        result += g * w7
        g = _load_shifted(grad, b, row - 1, column - 1, c, height, width, C)
        s8 += g * h
        result += g * w8
        if GELU:
            result *= slope
        mask = (column < width)[:, None] & (c < C)[None, :]
        tl.store(out + ((b * height + row) * width + column)[:, None] * C + c[None, :], result, mask=mask)
        total += tl.where(mask, result, 0.0)
    at = parts + pid.to(tl.int64) * (11 * C) + c
    tl.store(at + 0 * C, tl.sum(s0, 0), mask=c < C)
    tl.store(at + 1 * C, tl.sum(s1, 0), mask=c < C)
    tl.store(at + 2 * C, tl.sum(s2, 0), mask=c < C)
    tl.store(at + 3 * C, tl.sum(s3, 0), mask=c < C)
    tl.store(at + 4 * C, tl.sum(s4, 0), mask=c < C)
    tl.store(at + 5 * C, tl.sum(s5, 0), mask=c < C)
    tl.store(at + 6 * C, tl.sum(s6, 0), mask=c < C)
    tl.store(at + 7 * C, tl.sum(s7, 0), mask=c < C)
    tl.store(at + 8 * C, tl.sum(s8, 0), mask=c < C)
    tl.store(at + 9 * C, tl.sum(bias, 0), mask=c < C)
    tl.store(at + 10 * C, tl.sum(total, 0), mask=c < C)


@_jit
def norm_backward_kernel(
    grad, grad_normed, x, mean, rstd, gamma, out, parts, tokens,
    C: tl.constexpr, ROUNDS: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add the gradient of x through its LayerNorm to its other gradient. Grid: (blocks of ROUNDS · BLOCK_T tokens,).

    ``parts`` (programs, 2, C) gets sums for γ and β.
    """
    c = tl.arange(0, BLOCK_C)
    pid = tl.program_id(0).to(tl.int64)
    scale = _load_channels(gamma, c, C)[None, :]
    sum_gamma = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    sum_beta = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    for i in range(ROUNDS):
        token = (pid * ROUNDS + i) * BLOCK_T + tl.arange(0, BLOCK_T)
        mask = (token < tokens)[:, None] & (c < C)[None, :]
        at = token[:, None] * C + c[None, :]
        center = tl.load(mean + token, mask=token < tokens, other=0.0)[:, None]
        inverse = tl.load(rstd + token, mask=token < tokens, other=0.0)[:, None]
        normal = tl.where(mask, tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - center, 0.0) * inverse
        g = tl.load(grad_normed + at, mask=mask, other=0.0).to(tl.float32)
        sum_gamma += g * normal
        sum_beta += g
        g *= scale
        g = (g - tl.sum(g, 1)[:, None] / C - normal * (tl.sum(g * normal, 1)[:, None] / C)) * inverse
        tl.store(out + at, tl.load(grad + at, mask=mask, other=0.0).to(tl.float32) + g, mask=mask)
    tl.store(parts + pid * (2 * C) + c, tl.sum(sum_gamma, 0), mask=c < C)
    tl.store(parts + pid * (2 * C) + C + c, tl.sum(sum_beta, 0), mask=c < C)


@_jit
def add_branch_kernel(
    x, branch, gamma, factor, out, tokens,
    C: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Compute x + factor · γ · branch, without those that are None. Grid: (token blocks of an image, images)."""
    b = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    c = tl.arange(0, BLOCK_C)
    mask = (token < tokens)[:, None] & (c < C)[None, :]
    at = (b * tokens + token)[:, None] * C + c[None, :]
    value = tl.load(branch + at, mask=mask, other=0.0).to(tl.float32)
    if gamma is not None:
        value *= _load_channels(gamma, c, C)[None, :]
    if factor is not None:
        value *= tl.load(factor + b)
    tl.store(out + at, tl.load(x + at, mask=mask, other=0.0).to(tl.float32) + value, mask=mask)


@_jit
def add_branch_backward_kernel(
    grad, branch, gamma, factor, out, parts, tokens,
    C: tl.constexpr, ROUNDS: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of the branch. Grid: (blocks of ROUNDS · BLOCK_T tokens of an image, images).

    With ``gamma``, ``parts`` (programs, 1, C) gets sums for it.
    """
    b = tl.program_id(1).to(tl.int64)
    c = tl.arange(0, BLOCK_C)
    scale = tl.load(factor + b) if factor is not None else 1.0
    total = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    for i in range(ROUNDS):
        token = (tl.program_id(0) * ROUNDS + i) * BLOCK_T + tl.arange(0, BLOCK_T)
        mask = (token < tokens)[:, None] & (c < C)[None, :]
        at = (b * tokens + token)[:, None] * C + c[None, :]
        g = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32) * scale
        if gamma is not None:
            total += g * tl.load(branch + at, mask=mask, other=0.0).to(tl.float32)
            g *= _load_channels(gamma, c, C)[None, :]
        tl.store(out + at, g, mask=mask)
    if gamma is not None:
        program = b * tl.num_programs(0) + tl.program_id(0)
        tl.store(parts + program * C + c, tl.sum(total, 0), mask=c < C)


@_jit
def sum_kernel(
    parts, weight, first, second, programs,
    C: tl.constexpr, ROWS: tl.constexpr, TAPS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add the parts (programs, ROWS, C) of all programs. Grid: (channel blocks, ROWS).

    The first TAPS rows go to ``weight`` (C, TAPS), the next to ``first`` and ``second``, (C) each.
    """
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    row = tl.program_id(1)
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for start in range(0, programs, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        at = (p.to(tl.int64) * ROWS + row)[:, None] * C + c[None, :]
        total += tl.load(parts + at, mask=(p < programs)[:, None] & (c < C)[None, :], other=0.0)
    result = tl.sum(total, 0)
    if TAPS > 0:
        tl.store(weight + c * TAPS + row, result, mask=(c < C) & (row < TAPS))
    tl.store(first + c, result, mask=(c < C) & (row == TAPS))
    if ROWS > TAPS + 1:
        tl.store(second + c, result, mask=(c < C) & (row == TAPS + 1))
