import numpy as np, soundfile as sf
def check_samples(x, sample_rate=16000):
    return x if x.dtype==np.float32 else x.astype(np.float32)/32768
def stream_file(p, s):
    x=sf.read(p,dtype='float32')[0]
    for i in range(0,len(x),16000): yield x[i:i+16000]
def duration(p): return sf.info(p).duration
