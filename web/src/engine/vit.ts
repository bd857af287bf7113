/**
 * The Vision Transformer, as vitlab/models/vit.py has it, for one image:
 *
 *   image -> patch_embed -> [prefix, patches] + position -> blocks -> norm -> pool -> head
 *
 * T tokens = the prefix, then N patches   D width   H heads   d = D / H   K classes
 */

import type { BlockTrace, Edits, Matrix, ModelConfig, ViTTrace } from "../types.ts";
import { maxPool, padded, shifted, unshuffle, type Grid } from "./maps.ts";
import {
  add,
  beside,
  columnsOf,
  constant,
  gelu,
  multiply,
  rowsOf,
  scale,
  scaleColumns,
  scaleRows,
  silu,
  softmax,
  stack,
  Tensor,
  times,
  transpose,
} from "./tensor.ts";
import { geluMaps, reluMaps, sequence, type Weights } from "./weights.ts";

type Layer = (x: Tensor) => Tensor;
type MapLayer = (maps: Grid) => Grid;

/** What a run of the model leaves, with the tensors that gradients are wanted of. */
export interface Pass {
  /** With logits where `ViTTrace` has probabilities: those of the lens. */
  trace: Omit<ViTTrace, "probabilities">;
  logits: Tensor;
  /** Attention of every block and head. */
  attention: Tensor[][];
  /** The tokens that enter each block, and those that leave the last. */
  tokens: Tensor[];
}

export class ViT {
  readonly prefix: string[];
  readonly rows: number;
  readonly columns: number;
  readonly patch: number;
  readonly depth: number;
  readonly heads: number;
  private readonly embed: (image: Grid) => { stage: Grid | null; patches: Tensor };
  private readonly learned: Tensor[];
  private readonly added: Tensor | null;
  private readonly rotation: Float32Array | null;
  private readonly blocks: Block[];
  private readonly norm: Layer;
  private readonly head: Layer;
  private readonly distilled: Layer | null;
  private readonly score: Layer | null;

  constructor(
    private readonly cfg: ModelConfig,
    weights: Weights,
    height: number,
    width: number,
  ) {
    this.patch = Number(cfg.patch_size);
    this.rows = Math.ceil(height / this.patch);
    this.columns = Math.ceil(width / this.patch);
    this.depth = Number(cfg.depth);
    this.heads = Number(cfg.heads);
    const registers = Array.from({ length: Number(cfg.registers) }, (_, i) => `register ${i + 1}`);
    this.prefix = [
      ...(cfg.cls_token ? ["CLS"] : []),
      ...(cfg.distill_token ? ["distillation"] : []),
      ...registers,
    ];
    this.embed = patchEmbed(cfg, weights);
    this.learned = ["cls_token", "dist_token", "reg_token"]
      .filter((name) => weights.has(name))
      .map((name) => {
        const [, count, width] = weights.shape(name);
        return new Tensor(count, width, weights.numbers(name));
      });
    const table = (name: string) => (weights.has(name) ? weights.numbers(name) : null);
    const added = table("position.added");
    this.added = added && new Tensor(added.length / Number(cfg.width), Number(cfg.width), added);
    this.rotation = table("position.rotation");
    this.blocks = Array.from({ length: this.depth }, (_, i) => new Block(cfg, weights, i));
    const eps = Number(cfg.norm_eps);
    // The last post-norm block has just normalised: a final norm would do it twice.
    this.norm = cfg.norm_place === "pre" ? weights.norm("norm", eps) : (x) => x;
    this.head = weights.linear("head");
    this.distilled = cfg.distill_token ? weights.linear("head_dist") : null;
    this.score = cfg.pool === "seqpool" ? weights.linear("pool.score") : null;
  }

  /** Run the model on a normalised image (C, height * width). */
  run(image: Grid, edits: Edits): Pass {
    const added = edits.positions ? null : this.added;
    // No map asks for gradients of what lies before the first block.
    const { stage, patches, entering } = constant(() => {
      const { stage, patches } = this.embed(image);
      const plain = stack([...this.learned, patches]);
      return { stage, patches, entering: added ? add(plain, added) : plain };
    });
    const rotation = edits.positions ? null : this.rotation;
    const out = new Set(edits.patches.map((patch) => this.prefix.length + patch));
    const grid = { rows: this.rows, columns: this.columns };
    const masked = this.mask(entering.rows, out);
    const tokens = [entering];
    const attention: Tensor[][] = [];
    const blocks = this.blocks.map((block, i): BlockTrace => {
      const heads = edits.heads.map((name) => name.split(".").map(Number));
      const skipped = edits.blocks.includes(i);
      const closed = new Set(heads.filter(([at]) => at === i).map(([, head]) => head));
      const found = block.run(tokens[i], { grid, rotation, masked, out, closed });
      attention.push(found.attention);
      tokens.push(skipped ? tokens[i] : found.tokens);
      const nothing = () => matrix(Tensor.zeros(entering.rows, entering.columns));
      return {
        attention: found.attention.map(matrix),
        mixed: skipped ? nothing() : matrix(found.mixed),
        hidden: matrix(found.hidden),
        fed: skipped ? nothing() : matrix(found.fed),
        tokens: matrix(tokens[i + 1]),
      };
    });
    const last = this.readOut(tokens[this.depth], out);
    return {
      logits: last.logits,
      attention,
      tokens,
      trace: {
        kind: "vit",
        logits: last.logits.values,
        stage: stage && {
          name: "stage",
          channels: stage.x.rows,
          rows: stage.height,
          columns: stage.width,
          values: stage.x.values,
        },
        patches: matrix(patches),
        positions: added && matrix(added),
        tokens: matrix(tokens[0]),
        blocks,
        readout: last.readout,
        pooled: last.pooled.values,
        lens: tokens.map((one) => this.readOut(one, out).logits.values),
      },
    };
  }

  /** Which keys (T, T) no query reads: those taken out, and with `lsa` a query's own. */
  private mask(tokens: number, out: Set<number>): Uint8Array {
    const masked = new Uint8Array(tokens * tokens);
    for (let query = 0; query < tokens; query++) {
      for (const key of out) masked[query * tokens + key] = 1;
      if (this.cfg.lsa) masked[query * tokens + query] = 1;
    }
    return masked;
  }

  /** Norm, pool and head on tokens (T, D): logits (1, K), and how they come about. */
  private readOut(
    tokens: Tensor,
    out: Set<number>,
  ): { logits: Tensor; pooled: Tensor; readout: Float32Array } {
    const final = this.norm(tokens);
    const { pooled, readout } = this.pool(final, out);
    const logits = this.head(pooled);
    if (!this.distilled) return { logits, pooled, readout };
    const token = Number(Boolean(this.cfg.cls_token));
    const other = this.distilled(rowsOf(final, token, token + 1));
    const halved = readout.map((one, i) => (one + Number(i === token)) / 2);
    return { logits: scale(add(logits, other), 1 / 2), pooled, readout: halved };
  }

  /** Tokens (T, D) to the vector that the head reads, and how much of each token is in it. */
  private pool(tokens: Tensor, out: Set<number>): { pooled: Tensor; readout: Float32Array } {
    const first = this.prefix.length;
    const closed = Uint8Array.from({ length: tokens.rows }, (_, i) =>
      Number(i < first || out.has(i)),
    );
    const left = tokens.rows - first - out.size;
    const cls = new Float32Array(tokens.rows);
    cls[0] = 1;
    const even = cls.map((_, i) => (closed[i] ? 0 : 1 / left));
    const mean = () => multiply(new Tensor(1, tokens.rows, even), tokens);
    switch (this.cfg.pool) {
      case "cls":
        return { pooled: rowsOf(tokens, 0, 1), readout: cls };
      case "mean":
        return { pooled: mean(), readout: even };
      case "cls+mean": {
        const pooled = beside([rowsOf(tokens, 0, 1), mean()]);
        return { pooled, readout: even.map((one, i) => (one + cls[i]) / 2) };
      }
      default: {
        const weights = softmax(transpose(this.score!(tokens)), closed);
        return { pooled: multiply(weights, tokens), readout: weights.values };
      }
    }
  }
}

/** What a block is told beside its tokens. */
interface Circumstances {
  grid: { rows: number; columns: number };
  /** Cosines and sines (2, T, d/2) of rotary positions. */
  rotation: Float32Array | null;
  /** (T, T): 1 where a query must not read a key. */
  masked: Uint8Array;
  /** Tokens that are taken out, and heads. */
  out: Set<number>;
  closed: Set<number>;
}

/** Two residual branches: attention mixes tokens, the feed-forward network works on each. */
class Block {
  private readonly norms: [Layer, Layer];
  private readonly scales: [Layer, Layer];
  private readonly qkv: Layer;
  private readonly proj: Layer;
  private readonly qNorm: Layer;
  private readonly kNorm: Layer;
  private readonly temperature: Float32Array | null;
  private readonly fc1: Layer;
  private readonly fc2: Layer;
  private readonly depthwise: MapLayer | null;

  constructor(
    private readonly cfg: ModelConfig,
    weights: Weights,
    index: number,
  ) {
    const at = `blocks.${index}`;
    const eps = Number(cfg.norm_eps);
    const norm = (name: string) => weights.norm(`${at}.${name}`, eps);
    this.norms = [norm("norm1"), norm("norm2")];
    this.scales = [layerScale(weights, `${at}.ls1`), layerScale(weights, `${at}.ls2`)];
    this.qkv = weights.linear(`${at}.attn.qkv`);
    this.proj = weights.linear(`${at}.attn.proj`);
    this.qNorm = cfg.qk_norm ? norm("attn.q_norm") : (x) => x;
    this.kNorm = cfg.qk_norm ? norm("attn.k_norm") : (x) => x;
    this.temperature = cfg.lsa ? weights.numbers(`${at}.attn.temperature`) : null;
    this.fc1 = weights.linear(`${at}.mlp.fc1`);
    this.fc2 = weights.linear(`${at}.mlp.fc2`);
    this.depthwise = cfg.ffn === "dwconv" ? weights.depthwise(`${at}.mlp.dwconv`) : null;
  }

  run(tokens: Tensor, told: Circumstances) {
    const [norm1, norm2] = this.norms;
    const [scale1, scale2] = this.scales;
    if (this.cfg.norm_place === "pre") {
      const { attention, mixed: found } = this.attend(norm1(tokens), told);
      const mixed = scale1(found);
      const between = add(tokens, mixed);
      const { hidden, fed: made } = this.feed(norm2(between), told);
      const fed = scale2(made);
      return { attention, mixed, hidden, fed, tokens: add(between, fed) };
    }
    const { attention, mixed: found } = this.attend(tokens, told);
    const mixed = scale1(found);
    const between = norm1(add(tokens, mixed));
    const { hidden, fed: made } = this.feed(between, told);
    const fed = scale2(made);
    return { attention, mixed, hidden, fed, tokens: norm2(add(between, fed)) };
  }

  /** Every token takes a mean of all tokens, weighted by how well their keys fit its query. */
  private attend(tokens: Tensor, { rotation, masked, closed }: Circumstances) {
    const heads = Number(this.cfg.heads);
    const width = tokens.columns / heads;
    const qkv = this.qkv(tokens); // (T, 3D): queries, keys and values, each head by head
    const part = (which: number, head: number) => {
      const from = which * tokens.columns + head * width;
      return columnsOf(qkv, from, from + width);
    };
    const attention: Tensor[] = [];
    const mixed = Array.from({ length: heads }, (_, head) => {
      const factor = this.temperature ? 1 / this.temperature[head] : width ** -0.5;
      const q = rotate(this.qNorm(part(0, head)), rotation);
      const k = rotate(this.kNorm(part(1, head)), rotation);
      const scores = multiply(scale(q, factor), transpose(k));
      attention.push(softmax(scores, masked)); // (T, T)
      const found = multiply(attention[head], part(2, head)); // (T, d)
      return closed.has(head) ? Tensor.zeros(found.rows, found.columns) : found;
    });
    return { attention, mixed: this.proj(beside(mixed)) };
  }

  /** The feed-forward network: what its hidden layer holds, and what comes out. */
  private feed(tokens: Tensor, { grid, out }: Circumstances): { hidden: Tensor; fed: Tensor } {
    const first = this.fc1(tokens);
    let hidden: Tensor;
    if (this.cfg.ffn === "swiglu") {
      const half = first.columns / 2;
      hidden = times(silu(columnsOf(first, 0, half)), columnsOf(first, half, first.columns));
    } else hidden = gelu(this.depthwise ? this.mixNeighbours(first, grid, out) : first);
    return { hidden, fed: this.fc2(hidden) };
  }

  /** The 3x3 convolution between the layers of ffn='dwconv': the prefix passes it by. */
  private mixNeighbours(hidden: Tensor, grid: Circumstances["grid"], out: Set<number>): Tensor {
    const prefix = hidden.rows - grid.rows * grid.columns;
    const kept = Float32Array.from({ length: hidden.rows }, (_, i) => Number(!out.has(i)));
    const present = out.size ? scaleRows(hidden, kept) : hidden;
    const maps = transpose(rowsOf(present, prefix, hidden.rows));
    const mixed = this.depthwise!({ x: maps, height: grid.rows, width: grid.columns });
    const patches = transpose(mixed.x);
    return prefix ? stack([rowsOf(hidden, 0, prefix), patches]) : patches;
  }
}

function layerScale(weights: Weights, name: string): Layer {
  if (!weights.has(`${name}.gamma`)) return (x) => x;
  const gamma = weights.numbers(`${name}.gamma`);
  return (x) => scaleColumns(x, gamma);
}

/** Rotate pairs of numbers in queries or keys (T, d) by the angles of their tokens. */
function rotate(x: Tensor, rotation: Float32Array | null): Tensor {
  if (!rotation) return x;
  const half = x.columns / 2;
  const table = (which: number) => {
    const from = which * x.rows * half;
    return new Tensor(x.rows, half, rotation.subarray(from, from + x.rows * half));
  };
  const [cosine, sine] = [table(0), table(1)];
  const [a, b] = [columnsOf(x, 0, half), columnsOf(x, half, x.columns)];
  const minus = scale(times(b, sine), -1);
  return beside([add(times(a, cosine), minus), add(times(a, sine), times(b, cosine))]);
}

/** From an image to the patch tokens (N, D); of a hybrid also the maps that they are cut from. */
function patchEmbed(cfg: ModelConfig, weights: Weights) {
  const at = "patch_embed.proj";
  const hybrid = cfg.kind === "hybrid";
  const patch = Number(cfg.patch_size);
  const step = hybrid ? patch / Number(cfg.stage_size) : patch;
  const stage = hybrid ? convStage(cfg, weights, `${at}.stage`) : null;
  const layers = patchLayers(cfg, weights, hybrid ? `${at}.patch` : at, step);
  const eps = Number(cfg.norm_eps);
  const norm: Layer = cfg.embed_norm ? weights.norm("patch_embed.norm", eps) : (x) => x;
  return (image: Grid) => {
    const { height, width } = image;
    const missing = (side: number) => (patch - (side % patch)) % patch;
    const full = cfg.pad_to_patch ? padded(image, missing(width), missing(height)) : image;
    const maps = stage ? stage(full) : null;
    return { stage: maps, patches: norm(transpose(layers(maps ?? full).x)) };
  };
}

/** The layers of each choice of `patch`, at `step` places from patch to patch. */
function patchLayers(cfg: ModelConfig, weights: Weights, at: string, step: number): MapLayer {
  const halvings = Math.log2(step);
  switch (cfg.patch) {
    case "linear":
      return weights.convolution(at, step);
    case "overlap":
      return weights.convolution(at, step, step - 1);
    case "conv": {
      const count = Number(cfg.patch_convs ?? 3);
      return stem(
        weights,
        at,
        Array.from({ length: count }, (_, i) => (i < count - halvings ? 1 : 2)),
      );
    }
    case "cct": {
      const pool: MapLayer = (maps) => maxPool(maps, 3, 2, 1);
      const layers = Array.from({ length: halvings }, (_, i) => [
        weights.convolution(`${at}.${3 * i}`, 1, 1),
        reluMaps,
        pool,
      ]);
      return sequence(layers.flat());
    }
    case "spt": {
      const norm = weights.norm(`${at}.norm`, Number(cfg.norm_eps));
      const linear = weights.linear(`${at}.linear`);
      return (image) => {
        const squares = unshuffle(shiftedCopies(image, Math.floor(step / 2)), step);
        return { ...squares, x: transpose(linear(norm(transpose(squares.x)))) };
      };
    }
    default: {
      const rest = halvings - 1 > 0 ? Array(halvings - 1).fill(2) : [1];
      const whiten = weights.convolution(`${at}.0`, 2);
      return sequence([whiten, geluMaps, stem(weights, at, [1, ...rest], 2)]);
    }
  }
}

/** 3x3 convolutions with batch norm and GELU between them, the first at index `from`. */
function stem(weights: Weights, at: string, strides: number[], from = 0): MapLayer {
  const layers = strides.map((stride, i) => {
    const convolution = weights.convolution(`${at}.${from + 3 * i}`, stride, 1);
    if (i === strides.length - 1) return [convolution];
    return [convolution, weights.batchNorm(`${at}.${from + 3 * i + 1}`), geluMaps];
  });
  return sequence(layers.flat());
}

/** The convolutional stage of a hybrid: a stem, then residual blocks. */
function convStage(cfg: ModelConfig, weights: Weights, at: string): MapLayer {
  const halvings = Math.log2(Number(cfg.stage_size));
  const strides = [1, ...(halvings ? Array(halvings).fill(2) : [1])];
  const blocks = Array.from({ length: Number(cfg.stage_depth) }, (_, i): MapLayer => {
    const name = `${at}.${i + 1}`;
    const depthwise = weights.depthwise(`${name}.dwconv`);
    const norm = weights.norm(`${name}.norm`, Number(cfg.norm_eps));
    const [fc1, fc2] = [weights.linear(`${name}.fc1`), weights.linear(`${name}.fc2`)];
    return (maps) => {
      const branch = fc2(gelu(fc1(norm(transpose(depthwise(maps).x)))));
      return { ...maps, x: add(maps.x, transpose(branch)) };
    };
  });
  return sequence([stem(weights, `${at}.0`, strides), ...blocks]);
}

/** An image and four copies of it, shifted diagonally by half a patch, as channels. */
function shiftedCopies(image: Grid, half: number): Grid {
  const copies = [half, -half].flatMap((down) =>
    [half, -half].map((right) => shifted(image, down, right).x),
  );
  return { ...image, x: stack([image.x, ...copies]) };
}

function matrix({ rows, columns, values }: Tensor): Matrix {
  return { rows, columns, values };
}
