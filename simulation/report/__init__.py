"""The report of a run: one HTML file without network, for a radiologist and a data protection officer alike.

``facts.py``: what is known, as plain values. ``figures.py``: every number that is shown, by name. ``charts.py``: SVG by
hand, so that it follows light, dark and print. ``sections.py`` and ``page.py``: the words around them.
"""
