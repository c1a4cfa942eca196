"""Attacks on secure aggregation, each one a short play against the real halves of the protocol.

``arena`` is the stage and the judge; ``orders``, ``lists``, ``unmasking``, ``whole_rounds`` and ``two_truths`` hold a
malicious server's attacks, ``fakes`` those with hospitals that it invented, ``sites``, ``poisoning`` and ``framing``
those of a malicious hospital (``lying_sites``), ``network`` those of somebody on the wire.
"""
