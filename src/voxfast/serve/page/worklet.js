// Runs on the browser's audio thread: gathers the microphone into blocks of 16-bit PCM.

const BLOCK_SECONDS = 0.08; // a position of the model

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate * BLOCK_SECONDS);
    this.block = new Int16Array(this.size);
    this.filled = 0;
    this.peak = 0;
    this.port.onmessage = () => this.send(true); // the recording ends: what is left
  }

  process([channels]) {
    const [left, ...others] = channels;
    for (let i = 0; left && i < left.length; i++) {
      let sample = left[i];
      for (const other of others) sample += other[i];
      sample /= channels.length;
      this.peak = Math.max(this.peak, Math.abs(sample));
      this.block[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      if (this.filled === this.size) this.send();
    }
    return true;
  }

  send(isLast = false) {
    const pcm = this.block.slice(0, this.filled).buffer;
    this.port.postMessage({ pcm, peak: this.peak, isLast }, [pcm]);
    this.filled = this.peak = 0;
  }
}

registerProcessor("recorder", Recorder);
