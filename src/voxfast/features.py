import numpy as np, mlx.core as mx
from voxfast import ops
class LogMelStream:
    def __init__(self, *, left_padding=0, n_mels=128, log_floor=None, shift=0., scale=1.):
        self.tail=np.zeros(left_padding,np.float32); self.kw=dict(n_mels=n_mels,log_floor=log_floor,shift=shift,scale=scale); self.n_mels=n_mels
    def step(self, samples):
        x=np.concatenate([self.tail,samples])
        if len(x)<400:
            self.tail=x; return mx.zeros((0,self.n_mels))
        t=(len(x)-400)//160+1
        self.tail=x[t*160:].copy()
        return ops.log_mel(mx.array(x),**self.kw)
