"""Triton kernels of super token sampling and upsampling, launched by :mod:`mmstvit.ops.triton.operators`.

A program works on a tile: BLOCK_T tokens of a square *group* of G×G neighboring cells. Together these cells have
(G+2)×(G+2) super tokens around them, the *lanes* of the tile: 9 for one cell, 16 for 2×2 cells. Association, weighted
sums and upsampling are then matrix products between a tile of tokens and its lanes, 16 wide for the tensor cores.
A token's weight is zero on the lanes that are not among its own nine.

Sums use no atomics, so that results repeat bit for bit: every tile writes its weighted sums, one per lane, to memory of
its own (``parts``), and a second kernel gathers for each super token the sums of the groups around it.

Letters: B batch · C channels · H, W sides of the map · s, S side of a cell in tokens · h, w cells per side ·
gh, gw groups per side · sb, sy, sx strides of a map in elements; channels are adjacent in memory.
Offsets are 64 bits wide wherever they grow with the batch or the map.
"""

import triton
import triton.language as tl

from ..super_token import EPS

_EPS = tl.constexpr(EPS)
_LANES = tl.constexpr(16)

# Sides and grid sizes change from image to image; compiling again for every multiple of 16 among them gains nothing.
_jit = triton.jit(do_not_specialize=['height', 'width', 'h', 'w', 'gh', 'gw', 'cells'])


@triton.jit
def _tile(pid, h, w, gh, gw, S: tl.constexpr, G: tl.constexpr, BLOCK_T: tl.constexpr):
    """Locate the tokens and lanes of a tile.

    Returns:
        Tuple of

        - batch index, row and column of every token in the map padded to whole cells: scalar, (BLOCK_T,), (BLOCK_T,)
        - True if the token belongs to a cell of the grid: (BLOCK_T,)
        - True if a lane is among the nine super tokens around the token's cell: (BLOCK_T, 16)
        - offset of that pair in the association: (BLOCK_T, 16)
        - number of the lane's super token, and True if it is on the grid: (16,), (16,)
    """
    SIDE: tl.constexpr = G + 2
    BLOCKS: tl.constexpr = (G * G * S * S + BLOCK_T - 1) // BLOCK_T
    group = pid // BLOCKS
    b = (group // (gh * gw)).to(tl.int64)
    i0 = group // gw % gh * G
    j0 = group % gw * G

    token = pid % BLOCKS * BLOCK_T + tl.arange(0, BLOCK_T)  # row by row through the group
    y = token // (G * S)
    x = token % (G * S)
    i = y // S
    j = x // S
    exists = (token < G * G * S * S) & (i0 + i < h) & (j0 + j < w)

    lane = tl.arange(0, _LANES)
    li = lane // SIDE
    lj = lane % SIDE
    di = li[None, :] - i[:, None]
    dj = lj[None, :] - j[:, None]
    near = (di >= 0) & (di < 3) & (dj >= 0) & (dj < 3)
    place = ((b * h + i0 + i) * w + j0 + j) * (S * S) + y % S * S + x % S
    pair = place[:, None] * 9 + di * 3 + dj

    si = i0 + li - 1
    sj = j0 + lj - 1
    on_grid = (lane < SIDE * SIDE) & (si >= 0) & (si < h) & (sj >= 0) & (sj < w)
    return b, i0 * S + y, j0 * S + x, exists, near, pair, (b * h + si) * w + sj, on_grid


# Under TRITON_INTERPRET=1 triton.jit returns another class, which runs on any device.
INTERPRETED = tl.constexpr(not isinstance(_tile, triton.JITFunction))


@triton.jit
def _dot(a, b, acc):
    """Compute acc + a @ b in fp32; fp32 operands are never rounded to TF32.

    Half-precision products are exact in fp32, so the tensor cores lose nothing here.
    """
    if INTERPRETED:  # NumPy has no bf16: the interpreter would multiply bit patterns
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision='ieee')


@_jit
def mean_kernel(
    x, tokens, height, width, h, w, sb, sy, sx,
    C: tl.constexpr, S: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Compute the mean of every cell, padding included. Grid: (cells, blocks of channels)."""
    cell = tl.program_id(0)
    b = (cell // (h * w)).to(tl.int64)
    i = cell // w % h
    j = cell % w
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], tl.float32)
    for start in range(0, S * S, BLOCK_T):
        token = start + tl.arange(0, BLOCK_T)
        y = i * S + token // S
        z = j * S + token % S
        at = b * sb + y.to(tl.int64) * sy + z.to(tl.int64) * sx
        inside = (token < S * S) & (y < height) & (z < width)
        tile = tl.load(x + at[:, None] + c[None, :], mask=inside[:, None] & (c < C)[None, :], other=0.0)
        total += tl.sum(tile.to(tl.float32), 0)
    tl.store(tokens + cell.to(tl.int64) * C + c, total / (S * S), mask=c < C)


@_jit
def aggregate_kernel(
    x, tokens, affinity, parts, totals, height, width, h, w, gh, gw, sb, sy, sx, scale,
    C: tl.constexpr, S: tl.constexpr, G: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
    ASSOCIATE: tl.constexpr,
):  # fmt: skip
    """Compute weighted sums of a tile's tokens, one per lane. Grid: (tiles,).

    With ASSOCIATE the weights are computed from ``tokens`` and written to ``affinity``, and their sums to ``totals``;
    otherwise they are read from ``affinity``.
    """
    pid = tl.program_id(0)
    b, y, z, exists, near, pair, number, on_grid = _tile(pid, h, w, gh, gw, S, G, BLOCK_T)
    at = b * sb + y.to(tl.int64) * sy + z.to(tl.int64) * sx
    inside = exists & (y < height) & (z < width)
    lane = tl.arange(0, _LANES)
    used = lane < (G + 2) * (G + 2)
    slot = pid.to(tl.int64) * ((G + 2) * (G + 2)) + lane

    if ASSOCIATE:
        logits = tl.zeros([BLOCK_T, _LANES], tl.float32)
        for start in range(0, C, BLOCK_C):
            c = start + tl.arange(0, BLOCK_C)
            tile = tl.load(x + at[:, None] + c[None, :], mask=inside[:, None] & (c < C)[None, :], other=0.0)
            # Zeros outside the grid: they take part in the softmax with logit 0.
            around = tl.load(
                tokens + number[None, :] * C + c[:, None], mask=on_grid[None, :] & (c < C)[:, None], other=0.0
            )
            logits = _dot(tile, around, logits)
        # A token outside the grid has no super tokens around it; zeros keep its softmax finite.
        logits = tl.where(near | (exists == 0)[:, None], logits * scale, -float('inf'))
        weights = tl.exp(logits - tl.max(logits, 1)[:, None])
        weights = weights / tl.sum(weights, 1)[:, None]
        weights = tl.where(exists[:, None], weights, 0.0)
        tl.store(affinity + pair, weights, mask=near & exists[:, None])
        tl.store(totals + slot, tl.sum(weights, 0), mask=used)
    else:
        weights = tl.load(affinity + pair, mask=near & exists[:, None], other=0.0)

    weights = tl.trans(weights.to(x.dtype.element_ty))
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        tile = tl.load(x + at[:, None] + c[None, :], mask=inside[:, None] & (c < C)[None, :], other=0.0)
        part = _dot(weights, tile, tl.zeros([_LANES, BLOCK_C], tl.float32))
        tl.store(parts + slot[:, None] * C + c[None, :], part, mask=used[:, None] & (c < C)[None, :])


@_jit
def fold_kernel(
    parts, totals, tokens, normalizer, cells, h, w, gh, gw,
    C: tl.constexpr, G: tl.constexpr, BLOCKS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
    NORMALIZE: tl.constexpr,
):  # fmt: skip
    """Gather super tokens from the weighted sums of the groups around them. Grid: (cell blocks, channel blocks).

    With NORMALIZE they are divided by their total weight, which is written to ``normalizer``.
    """
    SIDE: tl.constexpr = G + 2
    REACH: tl.constexpr = 3 if G == 1 else 2  # groups per direction with a cell among a super token's nine
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    b = (n // (h * w)).to(tl.int64)
    i = n // w % h
    j = n % w
    sums = tl.zeros([BLOCK_N, BLOCK_C], tl.float32)
    weight = tl.zeros([BLOCK_N], tl.float32)
    for p in tl.static_range(REACH):
        gi = (i - 1 + G) // G - 1 + p  # ⌊(i - 1) / G⌋ + p, without a negative dividend
        for q in tl.static_range(REACH):
            gj = (j - 1 + G) // G - 1 + q
            lane = (i - gi * G + 1) * SIDE + j - gj * G + 1
            valid = (n < cells) & (gi >= 0) & (gi < gh) & (gj >= 0) & (gj < gw)
            for block in range(BLOCKS):
                slot = (((b * gh + gi) * gw + gj) * BLOCKS + block) * (SIDE * SIDE) + lane
                mask = valid[:, None] & (c < C)[None, :]
                sums += tl.load(parts + slot[:, None] * C + c[None, :], mask=mask, other=0.0)
                if NORMALIZE:
                    weight += tl.load(totals + slot, mask=valid, other=0.0)
    if NORMALIZE:
        weight += _EPS
        sums = sums / weight[:, None]
        tl.store(normalizer + n, weight, mask=(n < cells) & (tl.program_id(1) == 0))
    tl.store(tokens + n.to(tl.int64)[:, None] * C + c[None, :], sums, mask=(n < cells)[:, None] & (c < C)[None, :])


@_jit
def upsample_kernel(
    tokens, affinity, out, height, width, h, w, gh, gw,
    C: tl.constexpr, S: tl.constexpr, G: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Compute every token from the nine super tokens around it, without the padding. Grid: (tiles,)."""
    b, y, z, exists, near, pair, number, on_grid = _tile(tl.program_id(0), h, w, gh, gw, S, G, BLOCK_T)
    inside = exists & (y < height) & (z < width)
    at = ((b * height + y) * width + z) * C
    weights = tl.load(affinity + pair, mask=near & inside[:, None], other=0.0).to(tokens.dtype.element_ty)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        around = tl.load(tokens + number[:, None] * C + c[None, :], mask=on_grid[:, None] & (c < C)[None, :], other=0.0)
        tile = _dot(weights, around, tl.zeros([BLOCK_T, BLOCK_C], tl.float32))
        tl.store(out + at[:, None] + c[None, :], tile, mask=inside[:, None] & (c < C)[None, :])
