import mlx.core as mx

from voxfast import ops


class SlidingKVCache:
    def __init__(self, window, *, max_rows=1, start=0, block=256):
        self.window = window
        self.cap = window + max_rows - 1
        self.start = start
        self.n = 0
        self.k = None

    @property
    def offset(self):
        return self.start + self.n

    @property
    def state(self):
        return [] if self.k is None else [self.k, self.v]

    def attend(self, q, k, v, *, scale, rotary=None, traditional=True, stream=None):
        if self.k is None:
            B, L, H, D = k.shape
            self.k = mx.zeros((B, H, self.cap, D), dtype=k.dtype)
            self.v = mx.zeros((B, H, self.cap, D), dtype=k.dtype)
        o, self.k, self.v = ops.sliding_attention(
            q,
            k,
            v,
            self.k,
            self.v,
            self.n,
            window=self.window,
            scale=scale,
            rotary=rotary,
            traditional=traditional,
        )
        self.n += q.shape[1]
        return o
