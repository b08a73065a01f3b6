"""What every loss stands on; no loss lives here.

To read it, go from the call inwards:

1. `declare`: how a function becomes a public loss, one program for each structure; `families`:
   what the options and docstrings of each family say; `checks`, whose errors name the function.
2. `reading`: logits and labels in, checked; `labels`: targets, a mask and weights out.
3. `softmax`, which stands on `margin` and `log_softmax`, `sigmoid`, and `confusion` of `images`:
   the three primitives, in which losses are short formulas; `classes` for few classes, `pairs` and
   `polygons` for pairs of boxes.
4. `cost`: what a loss costs at each value; `sums`: what it makes of sums of the values; both with
   derivatives of any order and little memory, by `recompute` and on a CPU `chunks`.
5. `scores` and `reduction`: the mean, the sum or every value, on one device or many.
6. What some platforms compute otherwise, because they are faster so: `gpu`, and `turned` of few
   classes, for costs and counts of ids on a GPU, `soft_planes` for soft labels; `shares`, `masks`
   and `soft` for counts of ids and of masks and for soft labels on a CPU; `lines` puts positions on
   one axis for both. `platforms` chooses.

Beside them: `numerics` for arithmetic that stays differentiable, `transform`, `blocks` and `maps`
for exact distances.
"""
