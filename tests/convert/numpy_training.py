"""Training of a tied TrellisNet language model in NumPy float64: forward and backward by hand."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class NumpyTrellisModel:
    """Embedding, trellis network with LSTM gates, softmax tied to the embedding.

    Layout (b, t, d). Two taps, dilation 1. The last hidden and cell vectors of a batch pad every
    level of the next one, without gradient.

    Args:
        weights: `table` (v, e), `bias` (v,), `input` (2, e, 4w), `hidden` (2, w, 4w) and `gates`
            (4w,), and with weight normalisation `gain_input` and `gain_hidden` (4w,).
        levels: number of levels.
        output: width of the output, the last channels.
    """

    def __init__(self, weights: dict[str, np.ndarray], levels: int, output: int):
        self.w = {name: np.array(array, np.float64) for name, array in weights.items()}
        self.levels, self.output = levels, output
        self.state = None

    def kernel(self, name):
        direction = self.w[name]
        if f"gain_{name}" not in self.w:
            return direction
        norm = np.sqrt(np.sum(direction**2, axis=(0, 1)))
        return self.w[f"gain_{name}"] * direction / norm

    def step(self, ids, targets, rate):
        """One step of plain gradient descent; returns the loss before it."""
        loss, gradients = self.differentiate(ids, targets)
        for name, gradient in gradients.items():
            self.w[name] -= rate * gradient
        return loss

    def differentiate(self, ids, targets):
        table, width = self.w["table"], self.w["hidden"].shape[1]
        x = table[ids]
        b, t, _ = x.shape
        h0, c0 = self.state or (np.zeros((b, width)),) * 2
        kernel_x, kernel_h = self.kernel("input"), self.kernel("hidden")
        x_before = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
        injection = x_before @ kernel_x[0] + x @ kernel_x[1] + self.w["gates"]
        h = c = np.zeros((b, t, width))
        kept = []
        for _ in range(self.levels):
            h_before = np.concatenate([h0[:, None], h[:, :-1]], axis=1)
            c_before = np.concatenate([c0[:, None], c[:, :-1]], axis=1)
            pre = injection + h_before @ kernel_h[0] + h @ kernel_h[1]
            i, o, g, f = np.split(pre, 4, axis=-1)
            i, o, g, f = sigmoid(i), sigmoid(o), np.tanh(g), sigmoid(f)
            below = h
            c = f * c_before + i * g
            squashed = np.tanh(c)
            h = o * squashed
            kept.append((below, h_before, c_before, i, o, g, f, squashed))
        self.state = h[:, -1], c[:, -1]
        out = h[..., -self.output :]

        logits = out @ table.T + self.w["bias"]
        logits -= logits.max(axis=-1, keepdims=True)
        log_probs = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
        loss = -np.mean(np.take_along_axis(log_probs, targets[..., None], axis=-1))

        d_logits = np.exp(log_probs)
        rows, steps = np.ogrid[:b, :t]
        d_logits[rows, steps, targets] -= 1
        d_logits /= b * t
        d = {"bias": d_logits.sum((0, 1)), "table": np.einsum("btv,bte->ve", d_logits, out)}
        d_h, d_c = np.zeros_like(h), np.zeros_like(c)
        d_h[..., -self.output :] = d_logits @ table
        d_injection = np.zeros_like(injection)
        d_kernel = np.zeros_like(kernel_h)
        for below, h_before, c_before, i, o, g, f, squashed in reversed(kept):
            d_c = d_c + d_h * o * (1 - squashed**2)
            parts = (
                d_c * g * i * (1 - i),
                d_h * squashed * o * (1 - o),
                d_c * i * (1 - g**2),
                d_c * c_before * f * (1 - f),
            )
            d_pre = np.concatenate(parts, axis=-1)
            d_injection += d_pre
            d_kernel += [np.einsum("bti,bto->io", a, d_pre) for a in (h_before, below)]
            d_before = d_pre @ kernel_h[0].T
            d_h = d_pre @ kernel_h[1].T
            d_h[:, :-1] += d_before[:, 1:]
            d_c = np.concatenate([(d_c * f)[:, 1:], np.zeros_like(d_c[:, :1])], axis=1)
        d["gates"] = d_injection.sum((0, 1))
        d_input = np.stack([np.einsum("bti,bto->io", a, d_injection) for a in (x_before, x)])
        d_x = d_injection @ kernel_x[1].T
        d_x[:, :-1] += (d_injection @ kernel_x[0].T)[:, 1:]
        np.add.at(d["table"], ids, d_x)
        for name, gradient in (("input", d_input), ("hidden", d_kernel)):
            d |= self.through_norm(name, gradient)
        return loss, d

    def through_norm(self, name, gradient):
        """From the gradient of a kernel to those of its direction and gain."""
        if f"gain_{name}" not in self.w:
            return {name: gradient}
        direction, gain = self.w[name], self.w[f"gain_{name}"]
        norm = np.sqrt(np.sum(direction**2, axis=(0, 1)))
        unit = direction / norm
        along = np.sum(gradient * unit, axis=(0, 1))
        return {name: gain / norm * (gradient - along * unit), f"gain_{name}": along}
