"""Secure aggregation: the rules both sides share, without a network, without Flower, without torch.

Source: Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal, Seth: Practical secure aggregation for
privacy-preserving machine learning, CCS 2017, the variant against a malicious server (figure 4, section 6.2), with
identities pinned out of band. The paper's letters, and where they live:

    u, v, n            sites and their number               ``Order.cohort``
    U0 .. U4           who is still there at each stage      ``common.secagg.stages``
    t                  shares that rebuild a secret          ``Order.threshold``
    c                  sites that help the server            ``Order.colluders``
    (c_sk, c_pk)       seals shares between two sites        ``Keys.sealing_key``
    (s_sk, s_pk)       makes the pairwise masks              ``Keys.mask_key``
    b_u                seed of the self mask                 ``Keys.seed_commitment`` commits to it
    s_uv               secret two sites agree on             ``common.secagg.keys.agree``
    PRG(k)             mask stream                           ``common.secagg.streams``
    x_u                quantised update of a site            ``common.secagg.fixed_point``
    y_u                masked update                         y_u = x_u + PRG(b_u) + sum of +-PRG(s_uv)
    ph, sid, u2h, u3h  order, session, dealers, survivors    ``common.secagg.statements``

Threats answered: a server that reads, changes, drops, delays, repeats or invents messages, shows different things to
different sites, orders weak parameters or asks for both secrets of a site; up to c sites that tell it all they know;
sites that drop out at any stage; sites that send malformed, late or wrong answers (they are named and left out).
What the server learns is the sum over at least max(t, s_min) sites, c + 2 of them or more, and who took part.

Threats not answered: what the sum itself shows (differential privacy does that); a site whose vector is garbage but in
range; a site that deals bad shares or fails after it dealt (it is named, and costs the attempt); a model made to
memorise (the plan is approved by people); a recording adversary with a quantum computer (X25519). Secrets are wiped as
well as Python can: integers of Shamir's scheme and copies inside libraries are released, not overwritten.

Read first: ``stages`` (who may say what when), then ``messages``, ``statements``, ``refusals``. The two halves are
``client.secagg.session`` and ``server.secagg.session``; ``docs/protocol.md`` shows a whole round in 20 lines.
"""
