"""The levels of a dense LSTM trellis with a written-out gradient: faster, and far smaller.

Automatic differentiation makes one partial gradient of the shared kernel a level and keeps them all
until it sums them. Here the backward pass first yields the gradients of the pre-activations, and
the kernel's gradient is one product over the rows of several levels at a time.
"""

from typing import NamedTuple

from keras import ops

from keras_seq.layers._trellis_levels import last_steps
from keras_seq.layers._trellis_plan import TrellisPlan, taps, windows


class _Saved(NamedTuple):
    """What the backward pass of one level needs."""

    source: object  # hidden input of the convolution, padded and masked; None: it is all zeros
    past_cell: object
    gates: tuple  # input, output, candidate, forget, after their activations
    bent_cell: object  # tanh of the new cell


class LSTMLevels:
    def __init__(self, plan: TrellisPlan, segments: int, return_pads: bool, levels_a_product: int):
        self.plan = plan
        self.segments = segments
        self.return_pads = return_pads
        self.levels_a_product = levels_a_product
        self.dilations = list(dict.fromkeys(d for d, used in zip(plan.dilations, plan.injected) if used))

    def __call__(self, kernel, injections, bias_only, hidden_pads, cell_pads, mask):
        plan = self.plan
        inputs = [kernel, bias_only, *(injections[d] for d in self.dilations)]
        count = len(inputs)
        has_pads, has_mask = hidden_pads is not None, mask is not None
        if has_mask:
            inputs.append(mask)
        if has_pads:
            inputs += [*hidden_pads, *cell_pads]

        def unpack(tensors):
            rest = list(tensors[count:])
            drop = rest.pop(0) if has_mask else None
            pads = (rest[: plan.levels], rest[plan.levels :]) if has_pads else None
            return tensors[0], tensors[1], dict(zip(self.dilations, tensors[2:count])), pads, drop

        @ops.custom_gradient
        def run(*tensors):
            kernel, bias_only, injections, pads, mask = unpack(tensors)
            shape = ops.shape(injections[self.dilations[0]])
            z = c = None
            saved, collected, next_hidden, next_cell = [], [], [], []
            for level in range(plan.levels):
                hidden_in, cell_in = self._pad(level, z, c, pads)
                if self.return_pads:
                    h_, c_ = hidden_in, cell_in
                    next_hidden.append(last_steps(h_, plan.padding(level)))
                    next_cell.append(last_steps(c_, plan.dilations[level]))
                source = hidden_in if mask is None or hidden_in is None else hidden_in * mask
                z, c, keep = self._forward(level, kernel, injections, bias_only, source, cell_in)
                saved.append(keep)
                if level in plan.collected:
                    collected.append(z[..., -plan.output_units :])

            def grad(*args, upstream=None):
                up = list(args if upstream is None else upstream)
                return self._backward(tensors, unpack, saved, up)

            return (z, c, *collected, *next_hidden, *next_cell), grad

        z, c, *rest = run(*inputs)
        m = len(plan.collected)
        n = plan.levels if self.return_pads else 0
        return z, c, rest[:m], rest[m : m + n], rest[m + n :]

    def _pad(self, level, z, c, pads):
        plan = self.plan
        P, d = plan.padding(level), plan.dilations[level]
        if z is None:
            return None, None  # TODO
        if pads is None:
            return ops.pad(z, [[0, 0], [P, 0], [0, 0]]), ops.pad(c, [[0, 0], [d, 0], [0, 0]])
        return ops.concatenate([pads[0][level], z], 1), ops.concatenate([pads[1][level], c], 1)

    def _forward(self, level, kernel, injections, bias_only, source, cell_in):
        plan, d = self.plan, self.plan.dilations[level]
        pre = injections[d]
        if source is not None:
            pre = pre + ops.matmul(windows(source, plan.kernel_size, d), kernel)
        i, o, g, f = ops.split(pre, 4, axis=-1)
        i, o, g, f = ops.sigmoid(i), ops.sigmoid(o), ops.tanh(g), ops.sigmoid(f)
        if cell_in is None:
            past = None
            c = i * g
        else:
            past = cell_in[:, :-d]
            c = f * past + i * g
        bent = ops.tanh(c)
        return o * bent, c, _Saved(source, past, (i, o, g, f), bent)

    def _backward(self, tensors, unpack, saved, up):
        plan = self.plan
        kernel, bias_only, injections, pads, mask = unpack(tensors)
        dz, dc = up[0], up[1]
        d_collected = dict(zip(plan.collected, up[2:]))
        d_inj = {}
        d_kernel = None
        rows_x, rows_d = [], []
        W = plan.width
        for level in reversed(range(plan.levels)):
            d = plan.dilations[level]
            keep = saved[level]
            if level in d_collected:
                dz = dz + ops.pad(d_collected[level], [[0, 0], [0, 0], [W - plan.output_units, 0]])
            i, o, g, f = keep.gates
            bent = keep.bent_cell
            dct = dc + dz * o * (1 - bent * bent)
            pieces = [dct * g * (i * (1 - i)), dz * bent * (o * (1 - o)), dct * i * (1 - g * g)]
            if keep.past_cell is None:
                pieces.append(ops.zeros_like(i))
            else:
                pieces.append(dct * keep.past_cell * (f * (1 - f)))
            dpre = ops.concatenate(pieces, -1)
            d_inj[d] = dpre if d not in d_inj else d_inj[d] + dpre
            if keep.source is None:
                continue
            dwin = ops.matmul(dpre, ops.transpose(kernel))
            views = ops.split(dwin, plan.kernel_size, -1)
            total = None
            for j, view in enumerate(views):
                s = (plan.kernel_size - 1 - j) * d
                if s:
                    view = ops.pad(view[:, s:], [[0, 0], [0, s], [0, 0]])
                total = view if total is None else total + view
            dz = total if mask is None else total * mask
            dc = ops.pad((dct * f)[:, d:], [[0, 0], [0, d], [0, 0]])
            rows_x.append(windows(keep.source, plan.kernel_size, d))
            rows_d.append(dpre)
            if len(rows_x) == self.levels_a_product or level == 1:
                X = ops.reshape(ops.concatenate(rows_x, 0), (-1, plan.kernel_size * W))
                D = ops.reshape(ops.concatenate(rows_d, 0), (-1, 4 * W))
                p = ops.matmul(ops.transpose(X), D)
                d_kernel = p if d_kernel is None else d_kernel + p
                rows_x, rows_d = [], []
        out = [d_kernel, ops.zeros_like(bias_only), *(d_inj[d] for d in self.dilations)]
        return tuple(out)
