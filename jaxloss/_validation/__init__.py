"""Checks of values under any transform: what a loss would answer with NaN, said in words.

Losses check shapes, dtypes and options while tracing, and never values. `validate` looks at the
values. What an argument should hold follows from its name in the loss's signature, so that every
loss is covered by a few rules: `_call` says which loss is meant and how it reads its arguments,
`_data` what each kind of data should hold, `_numbers` how one array is tested, `_heads` what the
heads of `jaxloss.detection` should be given, `_hints` what may not be meant. `_report` is what
comes out.
"""

from jaxloss._validation._report import Report as Report
from jaxloss._validation._validate import validate as validate
