"""The wrong answers to notebook 7's exercises; `tests.exercises.wrong_answers` says how."""


def resample(name: str, forward: str, conv: str) -> str:
    return f"""
class {name}(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, {conv})

    def forward(self, x):
        {forward}
"""


def down(forward: str, conv: str = "3, stride=2") -> str:
    return resample("Downsample", forward, conv)


def up(forward: str, conv: str = "3, padding=1") -> str:
    return resample("Upsample", forward, conv)


def field(start: int, step: str) -> str:
    return f"""
def receptive_field(layers):
    seen, jump = {start}, 1
    for kernel, stride in layers:
        {step}
    return seen
"""


def normalised(shape: str, dims: str, correction: int = 0) -> str:
    return f"""
def normalise_groups(x, groups):
    g = x.reshape({shape})
    mean = g.mean({dims}, keepdim=True)
    var = g.var({dims}, correction={correction}, keepdim=True)
    return ((g - mean) / (var + 1e-6).sqrt()).reshape(x.shape)
"""


def block(
    result: str, zero: str = "self.conv2.weight, self.conv2.bias", norm: str = "group_norm"
) -> str:
    return f"""
class ResBlock(nn.Module):
    def __init__(self, inputs, outputs, groups=32):
        super().__init__()
        norm = lambda channels: {norm}(channels, groups)
        if {norm!r} == "GroupNorm":
            norm = lambda channels: nn.GroupNorm(groups, channels)
        self.norm1 = norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        for weight in [{zero}]:
            nn.init.zeros_(weight)

    def forward(self, x):
        f, n1, c1, n2, c2 = F.silu, self.norm1, self.conv1, self.norm2, self.conv2
        return {result}
"""


def attention(formula: str) -> str:
    return f"""
def attend(q, k, v):
    scores, tokens, d = q @ k.transpose(-2, -1), q.shape[-2], q.shape[-1]
    scaled = scores / math.sqrt(d)
    return {formula}
"""


def heads(result: str) -> str:
    return f"""
class SelfAttention(nn.Module):
    def __init__(self, channels, heads=1):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def split(self, tokens):
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def weights(self, tokens):
        return None

    def forward(self, tokens):
        Q, K, V = self.q(tokens), self.k(tokens), self.v(tokens)
        q, k, v = self.split(Q), self.split(K), self.split(V)
        join = lambda mixed: mixed.transpose(1, 2).flatten(2)
        return {result}
"""


def half(name: str, end: str, order: str, last: str, blocks: str, resample: str) -> str:
    back = name == "Decoder"
    first = "config.latent_channels" if back else "3"
    return f"""
class {name}(nn.Module):
    def __init__(self, config):
        super().__init__()
        channels = config.channels{"[::-1]" if back else ""}
        inputs = (channels[0], *channels[:-1])
        last = len(channels) - 1
        patch = config.patch
        self.conv_in = nn.Conv2d({first}, channels[0], 3, padding=1)
        if {not back} and patch > 1:
            self.conv_in = nn.Conv2d(3, channels[0], patch, stride=patch)
        self.stages = nn.ModuleList(
            Stage(a, b, {blocks}, config.groups, {resample})
            for level, (a, b) in enumerate(zip(inputs, channels, strict=True))
        )
        self.mid = MidBlock(config)
        self.norm_out = group_norm(channels[-1], config.groups)
        self.conv_out = nn.Conv2d(channels[-1], {last}, 3, padding=1)
        if {back} and patch > 1:
            self.conv_out = nn.ConvTranspose2d(channels[-1], 3, patch, stride=patch)

    def stack(self, h):
        for stage in self.stages:
            h = stage(h)
        return h

    def forward(self, x):
        f, norm, out = F.silu, self.norm_out, self.conv_out
        h = {order}
        return {end}
"""


def encoder(
    end: str = "out(f(norm(h)))",
    order: str = "self.mid(self.stack(self.conv_in(x)))",
    last: str = "2 * config.latent_channels",
    blocks: str = "config.blocks",
    resample: str = "Downsample(b) if level < last else None",
) -> str:
    return half("Encoder", end, order, last, blocks, resample)


def decoder(
    end: str = "out(f(norm(h)))",
    order: str = "self.stack(self.mid(self.conv_in(x)))",
    last: str = "3",
    blocks: str = "config.blocks + 1",
    resample: str = "Upsample(b) if level < last else None",
) -> str:
    return half("Decoder", end, order, last, blocks, resample)


RIGHT = "self.shortcut(x) + c2(f(n2(c1(f(n1(x))))))"

WRONG: dict[str, list[tuple[str, str]]] = {
    "receptive_field": [
        (
            "def receptive_field(layers): return sum(kernel for kernel, _ in layers)",
            "windows overlap",
        ),
        (field(1, "seen += kernel - 1"), "left the strides out"),
        (
            field(0, "seen, jump = seen + (kernel - 1) * jump, jump * stride"),
            "One pixel is missing",
        ),
        (field(1, "jump *= stride; seen += (kernel - 1) * jump"), "own stride"),
        (field(1, "seen = (seen - 1) * stride + kernel"), "from the last layer"),
        (
            field(1, "seen, jump = seen + (kernel - 1) * jump, jump + stride - 1"),
            "(5, 2), (3, 1)] reaches 24",
        ),
        (field(24, "pass"), "through [] reaches 1"),
    ],
    "downsample": [
        (down("return self.conv(x)"), "Nothing was padded"),
        (down("return self.conv(F.pad(x, (1, 1, 1, 1)))"), "padding on all sides puts them too"),
        (down("return self.conv(F.pad(x, (0, 1, 0, 1), mode='replicate'))"), "repeated the border"),
        (down("return self.conv(F.pad(x, (1, 1, 1, 1)))", "3"), "should have shape"),
        (down("return F.avg_pool2d(x, 2)"), "It is not F.pad"),
        (down("self.conv(F.pad(x, (0, 1, 0, 1)))"), "yours is None"),
    ],
    "upsample": [
        (up("return F.interpolate(x, scale_factor=2.0)"), "The convolution is missing"),
        (up("return F.interpolate(self.conv(x), scale_factor=2.0)"), "repeated afterwards"),
        (
            up("return self.conv(F.interpolate(x, scale_factor=2.0, mode='bilinear'))"),
            "repeat the pixels",
        ),
        (
            up(
                "y = x.new_zeros(*x.shape[:2], *(2 * s for s in x.shape[2:])); "
                "y[..., ::2, ::2] = x; return self.conv(y)"
            ),
            "zeros between the pixels",
        ),
        (up("return self.conv(x)"), "should have shape"),
        (
            up("return self.conv(x.repeat(1, 1, 2, 2))"),
            "every pixel repeated in both directions",
        ),
    ],
    "normalise_groups": [
        (normalised("*x.shape[:2], -1", "2"), "each channel alone"),
        (normalised("len(x), -1", "1"), "all channels together"),
        (normalised("len(x), -1, groups, *x.shape[2:]", "(2, 3, 4)"), "groups of `groups`"),
        (normalised("len(x), groups, -1", "(0, 2)"), "over the batch too"),
        (normalised("len(x), groups, -1", "2", correction=1), "divided by n − 1"),
        (normalised("len(x), -1, groups", "1"), "PyTorch's first value"),
        (
            "def normalise_groups(x, groups): return F.group_norm(x, groups)",
            "Right but for a nearly flat",
        ),
        (
            "def normalise_groups(x, groups): return nn.GroupNorm(groups, x.shape[1], 1e-6)(x)",
            "it is PyTorch's",
        ),
    ],
    "res_block": [
        (block("c2(f(n2(c1(f(n1(x))))))"), "The shortcut is missing"),
        (block(RIGHT.replace("f(n", "F.relu(n")), "bend with ReLU"),
        (block("self.shortcut(x) + c2(n2(c1(n1(x))))"), "Nothing bends"),
        (block("self.shortcut(x) + c2(f(n2(c1(n1(x)))))"), "The first SiLU"),
        (block("self.shortcut(x) + c2(n2(c1(f(n1(x)))))"), "The second SiLU"),
        (block("self.shortcut(x) + c2(f(c1(f(n1(x)))))"), "`norm2` is not used"),
        (block("self.shortcut(x) + c2(f(n2(c1(n1(f(x))))))"), "after the norm, and not before"),
        (block(f"f({RIGHT})"), "no SiLU after the shortcut"),
        (block(RIGHT, zero="self.conv2.bias"), "A fresh `conv2` should be 0"),
        (block(RIGHT, norm="GroupNorm"), "eps should be 1e-06"),
        (block("self.shortcut(x) + 0.1 * c2(f(n2(c1(f(n1(x))))))"), "It is not shortcut(x) +"),
    ],
    "attend": [
        (attention("scores.softmax(-1) @ v"), "forgot to divide"),
        (attention("(scores / math.sqrt(tokens)).softmax(-1) @ v"), "divided by √T"),
        (attention("(scores / d).softmax(-1) @ v"), "divided by d"),
        (attention("scaled.softmax(-2) @ v"), "the wrong axis"),
        (attention("scaled.mT.softmax(-1) @ v"), "keys ask"),
        (attention("scaled @ v"), "bare scores"),
        (attention("scaled.softmax(0) @ v"), "PyTorch's first value"),
        (attention("scaled.exp() / scaled.exp().sum(-1, keepdim=True) @ v"), "exp overflows"),
        (attention("scaled.softmax(-1)"), "should have shape"),
    ],
    "self_attention": [
        (heads("join(attend(q, k, v))"), "`self.out` is missing"),
        (heads("tokens + self.out(join(attend(q, k, v)))"), "AttentionBlock's"),
        (heads("self.out(join(attend(k, q, v)))"), "have changed places"),
        (heads("self.out(attend(Q, K, V))"), "There is one head"),
        (heads("self.out(attend(q, k, v).reshape(tokens.shape))"), "in the wrong order"),
        (
            heads("self.out(join((q @ k.mT / tokens.shape[2] ** 0.5).softmax(-1) @ v))"),
            "the size of its own queries",
        ),
        (heads("self.out(join(attend(q, k, k)))"), "It is not `out` of all heads'"),
        (heads("attend(q, k, v)"), "should have shape"),
    ],
    "encoder": [
        (encoder(order="self.stack(self.conv_in(x))"), "`mid` is not used"),
        (encoder("out(h)"), "come before `conv_out`"),
        (encoder("out(norm(h))"), "SiLU after `norm_out`"),
        (encoder("out(f(h))"), "`norm_out` is not used"),
        (encoder("out(F.relu(norm(h)))"), "It is not conv_in → stages"),
        (encoder(last="config.latent_channels"), "`conv_out.weight` should have shape"),
        (encoder(resample="Downsample(b)"), "has weights `stages.2.resample`"),
        (encoder(blocks="config.blocks + 1"), "has weights `stages.0.blocks.2`"),
    ],
    "decoder": [
        (decoder(order="self.stack(self.conv_in(x))"), "`mid` is not used"),
        (decoder("out(h)"), "come before `conv_out`"),
        (decoder("out(norm(h))"), "SiLU after `norm_out`"),
        (decoder("out(f(h))"), "`norm_out` is not used"),
        (decoder("out(f(norm(h))).tanh()"), "no tanh"),
        (decoder("out(f(norm(h))).sigmoid()"), "no sigmoid"),
        (decoder(blocks="config.blocks"), "no weights `stages.0.blocks.2`"),
        (decoder("out(F.relu(norm(h)))"), "It is not conv_in → mid"),
    ],
}
