"""The clipped sum of per-patient gradients: the one place where patients meet, each within a bound.

    y = sum_i  g_i min(1, C' / |g_i|),   g_i = grad of  sum_j w_ij loss(network(x_ij), t_ij),   C' = C (1 - 1e-4)

    i  patient (the unit of privacy)      j  row: one scan, or one view of one scan, of patient i
    w  weights that depend on patient i's own record and on public values only
    C  clipping norm of the patient's stratum

One interface (``engine.PrivateGradient``), engines that agree in float64 to 1e-10: ``loop`` (the reference), ``vmap``
(also compiled, if the site wants it), ``book_keeping``; for networks so large that patients come one at a time,
``layer_by_layer``. Nothing but y leaves: no norm, no loss, no count. Read ``engine`` first.
"""
