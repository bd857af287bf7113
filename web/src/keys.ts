/** Where an arrow key leads on a grid of cells from cell `at`; null for other keys. */
export function neighbour(
  key: string,
  at: number,
  grid: { rows: number; columns: number },
): number | null {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns, ArrowDown: grid.columns }[
    key
  ];
  if (step === undefined) return null;
  return Math.min(grid.rows * grid.columns - 1, Math.max(0, at + step));
}
