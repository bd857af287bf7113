/**
 * Matrices with reverse-mode differentiation: what the models need, and no more.
 *
 * Everything is a matrix: tokens (T, D), maps (C, places), a vector as one row. Between `record`
 * and its end every operation notes how gradients go back through it.
 */

import { matmul } from "./matmul.ts";

export class Tensor {
  grad: Float32Array | null = null;

  constructor(
    readonly rows: number,
    readonly columns: number,
    readonly values: Float32Array,
  ) {}

  static zeros(rows: number, columns: number): Tensor {
    return new Tensor(rows, columns, new Float32Array(rows * columns));
  }

  /** The gradient, zeros at first, to add to. */
  get slope(): Float32Array {
    return (this.grad ??= new Float32Array(this.values.length));
  }
}

/** What goes back through the operations since `record` began; null while nothing is recorded. */
let tape: (() => void)[] | null = null;

/**
 * Compute with gradients: `score` picks one number of what `compute` returns, and every tensor on
 * the way to it gets its `grad`.
 */
export function record<T>(compute: () => T, score: (result: T) => [Tensor, number]): T {
  tape = [];
  try {
    const result = compute();
    const [tensor, index] = score(result);
    tensor.slope[index] = 1;
    for (const back of tape.reverse()) back();
    return result;
  } finally {
    tape = null;
  }
}

/** Compute what no gradient is wanted of: nothing is noted. */
export function constant<T>(compute: () => T): T {
  const before = tape;
  tape = null;
  try {
    return compute();
  } finally {
    tape = before;
  }
}

/** Note how the gradient of a result goes back, for when it has one. */
export function note(result: Tensor, back: (grad: Float32Array) => void): Tensor {
  tape?.push(() => result.grad && back(result.grad));
  return result;
}

function increase(target: Float32Array, by: Float32Array): void {
  for (let i = 0; i < target.length; i++) target[i] += by[i];
}

/** The transpose of numbers stored row by row. */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const turned = new Float32Array(values.length);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) turned[j * rows + i] = values[i * columns + j];
  return turned;
}

export function transpose(x: Tensor): Tensor {
  const { rows, columns } = x;
  return note(new Tensor(columns, rows, transposed(x.values, rows, columns)), (grad) =>
    increase(x.slope, transposed(grad, columns, rows)),
  );
}

/** All rows as one. */
export function flat(x: Tensor): Tensor {
  return note(new Tensor(1, x.values.length, x.values), (grad) => increase(x.slope, grad));
}

/** (R, I) times (I, C): (R, C). */
export function multiply(a: Tensor, b: Tensor): Tensor {
  const [rows, inner, columns] = [a.rows, a.columns, b.columns];
  const product = matmul(a.values, b.values, rows, inner, columns);
  return note(new Tensor(rows, columns, product), (grad) => {
    const bT = transposed(b.values, inner, columns);
    increase(a.slope, matmul(grad, bT, rows, columns, inner));
    const aT = transposed(a.values, rows, inner);
    increase(b.slope, matmul(aT, grad, inner, rows, columns));
  });
}

/** A linear layer's weights: as torch stores them, (outputs, inputs), and turned round. */
export class Linear {
  readonly turned: Float32Array;

  constructor(
    readonly outputs: number,
    readonly inputs: number,
    readonly weight: Float32Array,
    readonly bias: Float32Array | null,
  ) {
    this.turned = transposed(weight, outputs, inputs);
  }

  /** (R, inputs) to (R, outputs). */
  apply(x: Tensor): Tensor {
    const { outputs, inputs, weight, bias } = this;
    const y = matmul(x.values, this.turned, x.rows, inputs, outputs);
    if (bias) for (let i = 0; i < y.length; i++) y[i] += bias[i % outputs];
    return note(new Tensor(x.rows, outputs, y), (grad) =>
      increase(x.slope, matmul(grad, weight, x.rows, outputs, inputs)),
    );
  }
}

export function add(a: Tensor, b: Tensor): Tensor {
  const sum = a.values.map((value, i) => value + b.values[i]);
  return note(new Tensor(a.rows, a.columns, sum), (grad) => {
    increase(a.slope, grad);
    increase(b.slope, grad);
  });
}

/** The product of numbers in the same place. */
export function times(a: Tensor, b: Tensor): Tensor {
  const product = a.values.map((value, i) => value * b.values[i]);
  return note(new Tensor(a.rows, a.columns, product), (grad) => {
    const [toA, toB] = [a.slope, b.slope];
    for (let i = 0; i < grad.length; i++) {
      toA[i] += grad[i] * b.values[i];
      toB[i] += grad[i] * a.values[i];
    }
  });
}

/** Each number times the factor of its column, plus an offset. */
export function scaleColumns(x: Tensor, factors: Float32Array, offsets?: Float32Array): Tensor {
  const { rows, columns, values } = x;
  const y = new Float32Array(values.length);
  for (let i = 0, at = 0; i < rows; i++)
    for (let j = 0; j < columns; j++, at++)
      y[at] = values[at] * factors[j] + (offsets ? offsets[j] : 0);
  return note(new Tensor(rows, columns, y), (grad) => {
    const to = x.slope;
    for (let i = 0, at = 0; i < rows; i++)
      for (let j = 0; j < columns; j++, at++) to[at] += grad[at] * factors[j];
  });
}

/** Each number times the factor of its row, plus an offset. */
export function scaleRows(x: Tensor, factors: Float32Array, offsets?: Float32Array): Tensor {
  const { rows, columns, values } = x;
  const y = new Float32Array(values.length);
  for (let i = 0, at = 0; i < rows; i++)
    for (let j = 0; j < columns; j++, at++)
      y[at] = values[at] * factors[i] + (offsets ? offsets[i] : 0);
  return note(new Tensor(rows, columns, y), (grad) => {
    const to = x.slope;
    for (let i = 0, at = 0; i < rows; i++)
      for (let j = 0; j < columns; j++, at++) to[at] += grad[at] * factors[i];
  });
}

/** A function of each number, with its derivative. */
function each(x: Tensor, of: (value: number) => number, slope: (value: number) => number): Tensor {
  return note(new Tensor(x.rows, x.columns, x.values.map(of)), (grad) => {
    const to = x.slope;
    for (let i = 0; i < grad.length; i++) to[i] += grad[i] * slope(x.values[i]);
  });
}

export function scale(x: Tensor, factor: number): Tensor {
  return each(
    x,
    (v) => v * factor,
    () => factor,
  );
}

export function relu(x: Tensor): Tensor {
  return each(
    x,
    (v) => Math.max(0, v),
    (v) => Number(v > 0),
  );
}

export function silu(x: Tensor): Tensor {
  const sigmoid = (v: number) => 1 / (1 + Math.exp(-v));
  return each(
    x,
    (v) => v * sigmoid(v),
    (v) => sigmoid(v) * (1 + v * (1 - sigmoid(v))),
  );
}

/** The exact GELU, x times the normal distribution function. */
export function gelu(x: Tensor): Tensor {
  return each(
    x,
    (v) => v * normal(v),
    (v) => normal(v) + (v * Math.exp((-v * v) / 2)) / Math.sqrt(2 * Math.PI),
  );
}

/** The normal distribution function to 1e-7 (Abramowitz and Stegun, 7.1.26). */
function normal(v: number): number {
  const z = Math.abs(v) * Math.SQRT1_2;
  const t = 1 / (1 + 0.3275911 * z);
  const series =
    t *
    (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const tail = (series * Math.exp(-z * z)) / 2;
  return v < 0 ? tail : 1 - tail;
}

/**
 * Softmax of each row over the numbers whose place in `closed` is 0; a row that is closed whole
 * becomes zeros.
 */
export function softmax(x: Tensor, closed: Uint8Array): Tensor {
  const { rows, columns } = x;
  const y = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    const [from, to] = [i * columns, (i + 1) * columns];
    let most = -Infinity;
    for (let j = from; j < to; j++) if (!closed[j]) most = Math.max(most, x.values[j]);
    let sum = 0;
    for (let j = from; j < to; j++) if (!closed[j]) sum += y[j] = Math.exp(x.values[j] - most);
    for (let j = from; j < to; j++) y[j] /= sum || 1;
  }
  return note(new Tensor(rows, columns, y), (grad) => {
    const to = x.slope;
    for (let i = 0; i < rows; i++) {
      let mean = 0;
      for (let j = i * columns; j < (i + 1) * columns; j++) mean += grad[j] * y[j];
      for (let j = i * columns; j < (i + 1) * columns; j++) to[j] += y[j] * (grad[j] - mean);
    }
  });
}

/** Each row less its mean, over its standard deviation: LayerNorm without its scale and shift. */
export function standardise(x: Tensor, eps: number): Tensor {
  return normalise(x, eps, true);
}

/** Each row over its root mean square: RMSNorm without its scale. */
export function overRms(x: Tensor, eps: number): Tensor {
  return normalise(x, eps, false);
}

function normalise(x: Tensor, eps: number, centred: boolean): Tensor {
  const { rows, columns, values } = x;
  const y = new Float32Array(values.length);
  const inverse = new Float32Array(rows);
  for (let i = 0; i < rows; i++) {
    const [from, to] = [i * columns, (i + 1) * columns];
    let sum = 0;
    if (centred) for (let j = from; j < to; j++) sum += values[j];
    const mean = sum / columns;
    let squares = 0;
    for (let j = from; j < to; j++) squares += (values[j] - mean) ** 2;
    inverse[i] = 1 / Math.sqrt(squares / columns + eps);
    for (let j = from; j < to; j++) y[j] = (values[j] - mean) * inverse[i];
  }
  return note(new Tensor(rows, columns, y), (grad) => {
    const to = x.slope;
    for (let i = 0; i < rows; i++) {
      let [mean, along] = [0, 0];
      for (let j = i * columns; j < (i + 1) * columns; j++) {
        if (centred) mean += grad[j] / columns;
        along += (grad[j] * y[j]) / columns;
      }
      for (let j = i * columns; j < (i + 1) * columns; j++)
        to[j] += inverse[i] * (grad[j] - mean - y[j] * along);
    }
  });
}

/** Columns `from` to before `to`. */
export function columnsOf(x: Tensor, from: number, to: number): Tensor {
  const width = to - from;
  const y = new Float32Array(x.rows * width);
  for (let i = 0; i < x.rows; i++)
    y.set(x.values.subarray(i * x.columns + from, i * x.columns + to), i * width);
  return note(new Tensor(x.rows, width, y), (grad) => {
    const slope = x.slope;
    for (let i = 0; i < x.rows; i++)
      for (let j = 0; j < width; j++) slope[i * x.columns + from + j] += grad[i * width + j];
  });
}

/** Rows `from` to before `to`. */
export function rowsOf(x: Tensor, from: number, to: number): Tensor {
  const [first, last] = [from * x.columns, to * x.columns];
  return note(new Tensor(to - from, x.columns, x.values.slice(first, last)), (grad) =>
    increase(x.slope.subarray(first, last), grad),
  );
}

/** Tensors of equal width, one under another. */
export function stack(parts: Tensor[]): Tensor {
  const columns = parts[0].columns;
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  const all = new Tensor(rows, columns, new Float32Array(rows * columns));
  let at = 0;
  const places = parts.map((part) => {
    all.values.set(part.values, at);
    return (at += part.values.length) - part.values.length;
  });
  return note(all, (grad) =>
    parts.forEach((part, k) =>
      increase(part.slope, grad.subarray(places[k], places[k] + part.values.length)),
    ),
  );
}

/** Tensors of equal height, side by side. */
export function beside(parts: Tensor[]): Tensor {
  const rows = parts[0].rows;
  const columns = parts.reduce((sum, part) => sum + part.columns, 0);
  const all = new Tensor(rows, columns, new Float32Array(rows * columns));
  let at = 0;
  const places = parts.map((part) => {
    for (let i = 0; i < rows; i++) {
      const row = part.values.subarray(i * part.columns, (i + 1) * part.columns);
      all.values.set(row, i * columns + at);
    }
    return (at += part.columns) - part.columns;
  });
  return note(all, (grad) =>
    parts.forEach((part, k) => {
      const slope = part.slope;
      for (let i = 0; i < rows; i++)
        for (let j = 0; j < part.columns; j++)
          slope[i * part.columns + j] += grad[i * columns + places[k] + j];
    }),
  );
}
