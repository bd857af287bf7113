/**
 * What passes between Python and the page, and between the model and what is shown of it.
 *
 *   T tokens = a prefix (CLS, distillation, registers), then N patches = rows * columns
 *   D width   H heads   F hidden width   K classes   C channels
 *
 * Arrays are stored row by row.
 */

/** What `vitlab inside` writes into the page. */
export interface Payload {
  schema: 1;
  /** The run's name. */
  name: string;
  /** The model in a sentence without its full stop: how often it is right, and on what. */
  summary: string;
  /** The version of vitlab that wrote the page. */
  version: string;
  model: ModelConfig;
  task: "multiclass" | "multilabel";
  classes: string[];
  image: { height: number; width: number; channels: number };
  /** Per channel of the training images, in 0..1. */
  mean: number[];
  std: number[];
  /** What logits are divided by before they become probabilities. */
  temperature: number;
  /** False where the temperature was never measured. */
  calibrated: boolean;
  /** Of a model of several labels: the probability from which on each is given. */
  thresholds: number[] | null;
  pictures: Picture[];
  verdicts: Partial<Record<Method, Verdict>>;
  /** The gain in that test of a random map and of one that says "the middle". */
  baselines: { random: number; centre: number } | null;
  /** On what the verdicts were measured, in words: "256 validation images". Null: never. */
  tested: string | null;
  /** The command that measures the verdicts. */
  explain: string;
  /**
   * What each choice of the model means, by field, and how each part and each map works: two or
   * three sentences with their paper. `attention-map` is the map that METHODS call attention.
   */
  parts: Record<string, string>;
  tensors: Record<string, StoredTensor>;
  /** All tensors one after another, in base64. */
  weights: string;
}

/** The fields of `config.model`, as config.json has them. */
export type ModelConfig = { kind: "vit" | "hybrid" | "resnet18" | "cnn6" } & Record<
  string,
  string | number | boolean | null
>;

export interface Picture {
  name: string;
  /** What it is, in words. */
  title: string;
  /** Its true class, or labels, where known. */
  truth: string | null;
  /** uint8 (height, width, C) in base64. */
  pixels: string;
}

export interface StoredTensor {
  shape: number[];
  /** float16 where it holds every number exactly. */
  dtype: "float32" | "float16";
  /** Its first byte. */
  offset: number;
}

export const METHODS = ["attention", "rollout", "gradient-rollout", "grad-cam"] as const;
export type Method = (typeof METHODS)[number];

/** What the deletion and insertion test of this run said of a method's maps. */
export interface Verdict {
  /** As `vitlab explain` words it. */
  verdict: string;
  /** True if the maps beat a random map and the centre, and depend on what was learned. */
  passed: boolean;
  /** Area under insertion less area under deletion, and its 95 % interval. */
  gain: { mean: number; interval: [number, number] };
}

/** What is taken out of the model. */
export interface Edits {
  /** Patches by index: no token attends to them, and no pool reads them. */
  patches: number[];
  /** Heads as "block.head": what they find is set to 0. */
  heads: string[];
  /** Blocks by index: tokens pass them by. In a CNN, the branch of a residual block. */
  blocks: number[];
  /** Channels of a CNN's stage as "stage.channel": their maps are set to 0. */
  channels: string[];
  /** True: positions are neither added nor rotated. */
  positions: boolean;
}

export interface Matrix {
  rows: number;
  columns: number;
  /** rows * columns numbers. */
  values: Float32Array;
}

/** What every model makes of an image. */
interface Answer {
  /** (K,); with two heads, the mean of theirs. */
  logits: Float32Array;
  /** (K,), after temperature scaling: a softmax, or of several labels a sigmoid each. */
  probabilities: Float32Array;
}

export interface BlockTrace {
  /** Attention of every head, H of (T, T): rows are queries and sum to 1. */
  attention: Matrix[];
  /** What the attention branch adds to the tokens, (T, D). */
  mixed: Matrix;
  /** The hidden layer of the feed-forward network after its activation, (T, F). */
  hidden: Matrix;
  /** What the feed-forward branch adds to the tokens, (T, D). */
  fed: Matrix;
  /** The tokens that leave the block, (T, D). */
  tokens: Matrix;
}

export interface ViTTrace extends Answer {
  kind: "vit";
  /** Of a hybrid, the maps of its convolutional stage; else null. */
  stage: Maps | null;
  /** Patch tokens before positions and prefix, (N, D). */
  patches: Matrix;
  /** What is added to each token for its place, (T, D); null where nothing is added. */
  positions: Matrix | null;
  /** The tokens that enter the first block, (T, D). */
  tokens: Matrix;
  blocks: BlockTrace[];
  /** How much of each token the heads read, (T,), summing to 1. */
  readout: Float32Array;
  /** What the head reads. */
  pooled: Float32Array;
  /**
   * The "logit lens": probabilities (K,) read by the last norm, pool and head from the tokens that
   * enter the first block, and from those that leave each block.
   */
  lens: Float32Array[];
}

export interface Maps {
  name: string;
  channels: number;
  rows: number;
  columns: number;
  /** channels * rows * columns numbers. */
  values: Float32Array;
}

export interface ConvTrace extends Answer {
  kind: "cnn";
  stages: Maps[];
  /** What the last linear layer reads. */
  pooled: Float32Array;
}

export type Trace = ViTTrace | ConvTrace;

/** A map of what the answer rests on, covering the image evenly. */
export interface Heat {
  rows: number;
  columns: number;
  values: Float32Array;
}

export interface Model {
  readonly kind: "vit" | "cnn";
  /** Methods that this model has, in the order of METHODS. */
  readonly methods: Method[];
  /** Of a ViT: rows and columns of patches, pixels per side, tokens before the patches. */
  readonly grid: { rows: number; columns: number; patch: number; prefix: string[] } | null;
  /** Of a ViT: number of blocks and heads. Of a CNN: residual blocks (0 for others) and 0. */
  readonly depth: number;
  readonly heads: number;
  /** Of a CNN: which blocks lie in which stage, by index into its blocks; else empty. */
  readonly stages: { name: string; blocks: number[] }[];
  /** Run the model on an image, uint8 (height, width, C). */
  run(pixels: Uint8Array, edits: Edits): Trace;
  /** The maps of all methods for a class. */
  explain(pixels: Uint8Array, edits: Edits, label: number): Partial<Record<Method, Heat>>;
}

export const NOTHING: Edits = {
  patches: [],
  heads: [],
  blocks: [],
  channels: [],
  positions: false,
};
