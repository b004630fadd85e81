"""How well and how fast a model transcribes a data set: what ``voxfast bench`` does.

A data set (:mod:`.dataset`) is cut into streams, each stream is run and what happened is
written down as it was (:mod:`.measure`, :mod:`.journal`); every figure is computed from these
records afterwards (:mod:`.summary`, :mod:`.scoring`) and drawn (:mod:`.figures`), beside what
others published (:mod:`.peers`).
"""
