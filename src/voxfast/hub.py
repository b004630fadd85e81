from pathlib import Path
def find_model(n):
    return Path(__file__).parent/"checkpoints"/n if "/" not in n else Path(n)
