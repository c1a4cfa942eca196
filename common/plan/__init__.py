"""The study plan: everything that changes the model or the guarantee, agreed on, hashed, signed and approved.

Read ``plan.py`` first (the whole document), then the parts: ``task.py`` (what is learnt, from which images),
``privacy.py`` (what is promised), ``aggregation.py`` (how many sites must stand together, what the server does with the
sum), ``phases.py`` (what happens in each round). ``reading.py`` turns a TOML file into a plan or one clear sentence,
``signing.py`` binds it to the coordinator's key, ``guarantee.py`` recomputes what the plan's noise really buys.

Settings that change only speed (device, workers, batch memory) belong to the site and are not here.
"""
