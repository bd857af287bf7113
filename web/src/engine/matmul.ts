/** Matrix products, computed in WebAssembly. */

import kernels from "../../build/kernels.wasm?url";

const memory = new WebAssembly.Memory({ initial: 64 });
const bytes = Uint8Array.from(atob(kernels.split(",")[1]), (letter) => letter.charCodeAt(0));
// A module so small may be compiled at once: nothing waits for it.
const { multiply } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } })
  .exports as { multiply: (...numbers: number[]) => void };

/** A (rows, inner) times B (inner, columns), both stored row by row: (rows, columns). */
export function matmul(
  a: Float32Array,
  b: Float32Array,
  rows: number,
  inner: number,
  columns: number,
): Float32Array {
  const height = Math.ceil(rows / 4) * 4;
  const width = Math.ceil(columns / 8) * 8;
  const [atB, atC] = [height * inner, height * inner + inner * width];
  const floats = reserve(atC + height * width);
  floats.set(a);
  floats.fill(0, rows * inner, atB);
  if (width === columns) floats.set(b, atB);
  else {
    floats.fill(0, atB, atC);
    for (let i = 0; i < inner; i++)
      floats.set(b.subarray(i * columns, (i + 1) * columns), atB + i * width);
  }
  multiply(0, 4 * atB, 4 * atC, height, inner, width);
  if (width === columns) return floats.slice(atC, atC + rows * columns);
  const product = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    const from = atC + i * width;
    product.set(floats.subarray(from, from + columns), i * columns);
  }
  return product;
}

/** The module's memory as numbers, grown to hold so many. */
function reserve(count: number): Float32Array {
  const missing = 4 * count - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / 65536));
  return new Float32Array(memory.buffer);
}
