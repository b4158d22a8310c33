"""Keys and values of a batch whose rows have different lengths: a row's token number n lies in its slot n.

So a token that is refused needs no repair, and no padding comes between tokens. The caches of transformers 5
append to all rows at once, which leaves holes behind every refused token, and copy all of it at each pass.
"""

import torch
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin


class _Span:
    """Where the next forward pass writes: rows first .. last - 1, and of each row these slots."""

    def __init__(self) -> None:
        self.first = self.last = self.seen = 0
        self.room = (0, 0)  # rows and slots that there is to be room for
        self.slots = self.rows = torch.empty(0)


class _Layer(CacheLayerMixin):
    """Keys and values of one layer: rows x heads x slots x head size."""

    is_sliding = False

    def __init__(self, span: _Span):
        super().__init__()
        self.span = span

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        heads, size = key_states.shape[1], key_states.shape[3]
        self.keys = key_states.new_zeros(0, heads, 0, size)
        self.values = value_states.new_zeros(0, heads, 0, value_states.shape[3])
        self.is_initialized = True

    def update(self, key_states, value_states, *_, **__):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        span = self.span
        self.reserve(*map(max, (span.last, span.seen), span.room))
        self.keys[span.rows, :, span.slots] = key_states.transpose(1, 2)
        self.values[span.rows, :, span.slots] = value_states.transpose(1, 2)
        seen = slice(span.first, span.last), slice(None), slice(span.seen)
        return self.keys[seen], self.values[seen]

    def reserve(self, rows: int, slots: int) -> None:
        """Make room for `rows` rows of `slots` slots at least."""
        has_rows, has_slots = self.keys.shape[0], self.keys.shape[2]
        if rows > has_rows or slots > has_slots:
            self.resize(max(rows, has_rows), max(slots, has_slots))

    def resize(self, rows: int, slots: int) -> None:
        """Hold `rows` rows of `slots` slots; what is stored in them stays."""
        for name in ("keys", "values"):
            old = getattr(self, name)[:rows, :, :slots]
            # Zeros, as a slot that no token attends to must still hold a number.
            new = old.new_zeros(rows, old.shape[1], slots, old.shape[3])
            new[: old.shape[0], :, : old.shape[2]] = old
            setattr(self, name, new)

    def get_seq_length(self) -> int:
        return 0  # a model that makes its own mask reads a prompt, from its first token on

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.span.seen, 0

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):
    """The keys and values of a batch, for models that attend to all tokens or to a sliding window of them.
    Raises ValueError for others."""

    def __init__(self, config: PretrainedConfig):
        text = config.get_text_config()
        self.kinds = set(getattr(text, "layer_types", None) or ())
        unknown = self.kinds - {"full_attention", "sliding_attention"}
        if unknown:
            raise ValueError(f"{text.model_type} has layers that keep no keys and values: {sorted(unknown)}")
        self.window = getattr(text, "sliding_window", None)
        self.span = _Span()
        super().__init__(layers=[_Layer(self.span) for _ in range(text.num_hidden_layers)])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and slots that every layer has room for."""
        shapes = [layer.keys.shape if layer.is_initialized else (0, 0, 0) for layer in self.layers]
        return min(shape[0] for shape in shapes), min(shape[2] for shape in shapes)

    @property
    def nbytes(self) -> int:
        """Of all keys and values, those of empty slots included."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers if layer.is_initialized)

    def resize(self, rows: int, slots: int) -> None:
        """Hold `rows` rows of `slots` slots, a layer at a time; before the first pass, from that pass on."""
        self.span.room = rows, slots
        for layer in self.layers:
            if layer.is_initialized and layer.keys.shape[::2] != (rows, slots):
                layer.resize(rows, slots)

    def write_at(self, first: int, slots: torch.Tensor, seen: int) -> None:
        """The next pass reads tokens for rows from `first` on into `slots` (rows x tokens), and attends to
        `seen` slots."""
        span = self.span
        span.first, span.last, span.seen = first, first + len(slots), seen
        span.slots = slots
        span.rows = torch.arange(first, span.last, device=slots.device)[:, None]

    def mask(self) -> torch.Tensor | dict[str, torch.Tensor]:
        """What the next pass's tokens attend to, as the model wants it: all slots up to their own."""
        seen = torch.arange(self.span.seen, device=self.span.slots.device)
        own = self.span.slots[:, None, :, None]
        whole = seen <= own
        if self.window is None or self.kinds == {"full_attention"}:
            return whole
        near = whole & (seen > own - self.window)
        return {"full_attention": whole, "sliding_attention": near} if self.kinds else near

    def move(self, source: int, target: int) -> None:
        """Copy one row over another."""
        for layer in self.layers:
            layer.keys[target] = layer.keys[source]
            layer.values[target] = layer.values[source]

    def begin_with(self, other: "SlotCache", first: int, rows: int, slots: int) -> None:
        """Give the rows from `first` on the first `slots` slots of the first row of `other`."""
        for layer, start in zip(self.layers, other.layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(start.keys, start.values)
            layer.reserve(*map(max, (first + rows, slots), self.span.room))
            layer.keys[first : first + rows, :, :slots] = start.keys[:1, :, :slots]
            layer.values[first : first + rows, :, :slots] = start.values[:1, :, :slots]


def bytes_a_token(config: PretrainedConfig, dtype: torch.dtype) -> int:
    """What the keys and values of one token take in all layers."""
    text = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * dtype.itemsize * text.num_hidden_layers * text.num_key_value_heads * size
