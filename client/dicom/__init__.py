"""Scans: from a hospital's DICOM folder to encrypted, de-identified training records.

Read in this order: ``ingest.py`` (the whole run), ``walk.py`` (which files), ``header.py``, ``image_module.py`` (what
is refused before a pixel is decoded), ``pixels.py`` (stored values to numbers), ``instance.py`` (2-D), ``series.py``,
``volume.py`` (3-D), ``pseudonyms.py`` (keyed names), ``labels.py``, ``cache.py`` (what training reads).

Law of this package: what a file contains is touched only in a worker process (``worker.py``, limits in ``limits.py``);
the parent (``pool.py``, ``ingest.py``) sees an allow-list of checked facts and arrays of known size, never a text.
What is covered and what is not: docs/scans.md.
"""
