"""Attacks on secure aggregation, each one a short play against the real halves of the protocol.

``arena`` is the stage and the judge; ``orders``, ``lists``, ``unmasking``, ``whole_rounds`` hold a malicious server's
attacks, ``fakes`` those with hospitals that it invented, ``sites`` those of a malicious hospital, ``network`` those of
somebody on the wire.
"""
