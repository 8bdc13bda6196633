"""Random kills of a real engine's processes under a mixed load, against a model of what was acknowledged.

``engine`` drives the engine, ``processes`` sees what runs, ``model`` knows what may be true, ``work`` is the
load, ``killer`` the kills, ``host`` looks for leftovers, ``truth`` holds answers against the model, and in
``rounds`` all of it is played. ``tools/chaos`` is the command.
"""
