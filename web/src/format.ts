/** Numbers as readers see them. */

export function percent(share: number, digits = 1): string {
  return `${(100 * share).toFixed(digits)}\u00a0%`;
}

/** A number with its sign, three digits behind the point. */
export function signed(number: number): string {
  return `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(3)}`;
}

/** Where a patch lies, counted from 1. */
export function placeOf(patch: number, columns: number): string {
  return `row ${Math.floor(patch / columns) + 1}, column ${(patch % columns) + 1}`;
}

/** A token by its index: CLS and its like, or a patch. */
export function tokenName(token: number, grid: { columns: number; prefix: string[] }): string {
  const patch = token - grid.prefix.length;
  return patch < 0 ? grid.prefix[token] : `the patch in ${placeOf(patch, grid.columns)}`;
}
