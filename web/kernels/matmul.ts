// The one loop that takes the time: a matrix product in AssemblyScript, four numbers at once.

/**
 * C = A · B for matrices of f32 at byte addresses, stored row by row: A (rows, inner), B (inner,
 * columns), C (rows, columns). `rows` is a multiple of 4 and `columns` one of 8: callers pad.
 */
export function multiply(
  a: usize,
  b: usize,
  c: usize,
  rows: usize,
  inner: usize,
  columns: usize,
): void {
  const across = columns << 2; // bytes from row to row of B and C
  const along = inner << 2; // of A
  for (let column: usize = 0; column < across; column += 32)
    for (let row: usize = 0; row < rows; row += 4) {
      // 4 x 8 numbers of C stay in registers until they are complete.
      let c00 = f32x4.splat(0),
        c01 = f32x4.splat(0),
        c10 = f32x4.splat(0),
        c11 = f32x4.splat(0),
        c20 = f32x4.splat(0),
        c21 = f32x4.splat(0),
        c30 = f32x4.splat(0),
        c31 = f32x4.splat(0);
      let left = a + row * along;
      let top = b + column;
      for (let i: usize = 0; i < inner; i++) {
        const b0 = v128.load(top);
        const b1 = v128.load(top, 16);
        const a0 = v128.load32_splat(left);
        const a1 = v128.load32_splat(left + along);
        const a2 = v128.load32_splat(left + 2 * along);
        const a3 = v128.load32_splat(left + 3 * along);
        c00 = f32x4.add(c00, f32x4.mul(a0, b0));
        c01 = f32x4.add(c01, f32x4.mul(a0, b1));
        c10 = f32x4.add(c10, f32x4.mul(a1, b0));
        c11 = f32x4.add(c11, f32x4.mul(a1, b1));
        c20 = f32x4.add(c20, f32x4.mul(a2, b0));
        c21 = f32x4.add(c21, f32x4.mul(a2, b1));
        c30 = f32x4.add(c30, f32x4.mul(a3, b0));
        c31 = f32x4.add(c31, f32x4.mul(a3, b1));
        left += 4;
        top += across;
      }
      let into = c + row * across + column;
      v128.store(into, c00);
      v128.store(into, c01, 16);
      into += across;
      v128.store(into, c10);
      v128.store(into, c11, 16);
      into += across;
      v128.store(into, c20);
      v128.store(into, c21, 16);
      into += across;
      v128.store(into, c30);
      v128.store(into, c31, 16);
    }
}
