/** Principal components, to colour tokens with. */

import type { Matrix } from "../types.ts";
import { matmul } from "./matmul.ts";
import { transposed } from "./tensor.ts";

const COMPONENTS = 3;

/** Turns of the power iteration: enough for colours. */
const TURNS = 40;

/** Scores (rows, 3) of the rows on their three strongest principal components. */
export function principal({ rows, columns, values }: Matrix): Float32Array {
  const x = centred(values, rows, columns);
  const xT = transposed(x, rows, columns);
  // Of the two products with the same eigenvalues, the smaller one.
  const few = columns < rows;
  const size = few ? columns : rows;
  const product = few ? matmul(xT, x, columns, rows, columns) : matmul(x, xT, rows, columns, rows);
  const scores = new Float32Array(rows * COMPONENTS);
  for (let c = 0; c < Math.min(COMPONENTS, size); c++) {
    const { vector, value } = strongest(product, size);
    const score = few
      ? matmul(x, vector, rows, columns, 1)
      : vector.map((one) => one * Math.sqrt(Math.max(0, value)));
    // A component has no sign of its own: its largest score is made positive.
    const most = score.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);
    score.forEach((one, i) => (scores[i * COMPONENTS + c] = one * Math.sign(most || 1)));
    for (let i = 0; i < size; i++)
      for (let j = 0; j < size; j++) product[i * size + j] -= value * vector[i] * vector[j];
  }
  return scores;
}

function centred(values: Float32Array, rows: number, columns: number): Float32Array {
  const mean = new Float32Array(columns);
  values.forEach((one, i) => (mean[i % columns] += one / rows));
  return values.map((one, i) => one - mean[i % columns]);
}

/** The eigenvector of the largest eigenvalue of a symmetric matrix, by power iteration. */
function strongest(matrix: Float32Array, size: number): { vector: Float32Array; value: number } {
  let vector = Float32Array.from({ length: size }, (_, i) => Math.sin(i + 1));
  let value = 0;
  for (let turn = 0; turn < TURNS; turn++) {
    const next = matmul(matrix, vector, size, size, 1);
    value = Math.hypot(...next);
    if (value < 1e-12) return { vector: new Float32Array(size), value: 0 };
    vector = next.map((one) => one / value);
  }
  return { vector, value };
}
