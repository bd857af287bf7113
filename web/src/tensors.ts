/** Views of what the model computed. */

import { sequential, type Rgba } from "./colour.ts";
import type { Maps, Matrix } from "./types.ts";

/** The rows of patches among those of all tokens (T, D): (N, D). */
export function patchesOf(tokens: Matrix, prefix: number): Matrix {
  const { rows, columns, values } = tokens;
  return { rows: rows - prefix, columns, values: values.subarray(prefix * columns) };
}

/** Maps (C, rows, columns) as one row of C numbers for each place. */
export function byPlace(maps: Maps): Matrix {
  const places = maps.rows * maps.columns;
  const values = new Float32Array(places * maps.channels);
  for (let c = 0; c < maps.channels; c++)
    for (let i = 0; i < places; i++) values[i * maps.channels + c] = maps.values[c * places + i];
  return { rows: places, columns: maps.channels, values };
}

/** The length of each row of a matrix. */
export function lengths({ rows, columns, values }: Matrix): Float32Array {
  return Float32Array.from({ length: rows }, (_, i) => {
    let sum = 0;
    for (let j = 0; j < columns; j++) sum += values[i * columns + j] ** 2;
    return Math.sqrt(sum);
  });
}

/** The cosine of the angle between two vectors. */
export function cosine(a: Float32Array, b: Float32Array): number {
  let [product, one, two] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    product += a[i] * b[i];
    one += a[i] ** 2;
    two += b[i] ** 2;
  }
  return product / Math.sqrt(one * two || 1);
}

/** The cosine of a row to every row of a matrix. */
export function similarities({ rows, columns, values }: Matrix, row: number): Float32Array {
  const of = (i: number) => values.subarray(i * columns, (i + 1) * columns);
  return Float32Array.from({ length: rows }, (_, i) => cosine(of(i), of(row)));
}

/** Numbers as a picture that is about square. */
export function spread(values: Float32Array): { rows: number; columns: number; colours: Rgba } {
  let columns = Math.ceil(Math.sqrt(values.length));
  while (values.length % columns) columns++;
  return { rows: values.length / columns, columns, colours: sequential(values.map(Math.abs)) };
}

/** The channels of maps, those of the largest numbers first. */
export function strongestChannels({ channels, rows, columns, values }: Maps): number[] {
  const places = rows * columns;
  const strength = new Float32Array(channels);
  values.forEach((value, i) => (strength[Math.floor(i / places)] += Math.abs(value)));
  return Array.from(strength, (_, c) => c).sort((a, b) => strength[b] - strength[a]);
}
