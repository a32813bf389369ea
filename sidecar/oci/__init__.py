"""The wire side of OCI distribution, below ``registry.py``; it knows nothing of targets and decides nothing.

Reading order: ``headers`` and ``manifest`` (pure: what is received, as values), ``credential``, ``trust`` (TLS and
plain HTTP), ``pace`` (hosts that want to be left alone), ``transport`` (one request), ``login`` (challenges and
tokens), ``flight`` (equal questions share one answer), ``recent`` (a bounded memory).
"""
