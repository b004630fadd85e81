"""The server: one model, and every protocol that live clients speak.

A protocol is a :class:`voxfast.serve.dialect.Dialect`: frames and events in, actions out, with no
socket, no model and no clock in it. :mod:`voxfast.serve.bridge` stands between a dialect, a
connection and a session; :mod:`voxfast.serve.doors` lists the dialects by path.
"""
