// What a row of the server says, in words: { label, alternatives } | { labels, probabilities } | { objects } | { shares }, as `convmix predict` writes them.

/** Rounded down, as on the command line: 100.0 % is said of certainty alone. */
export const percent = (share) => `${(Math.floor(1000 * share) / 10).toFixed(1)} %`;

export const hasLabels = (row) => typeof row?.label === "string";
export const hasSeveral = (row) => Array.isArray(row?.labels) && typeof row.probabilities === "object" && row.probabilities !== null;
export const hasObjects = (row) => Array.isArray(row?.objects);
export const hasMap = (row) => typeof row?.shares === "object" && row.shares !== null;
export const hasMasks = (row) => hasObjects(row) && row.objects.some((o) => o.segmentation);

/** Whether the answer counts as sure; threshold null: as the server said. */
export const isSure = (row, threshold) => (threshold === null ? row.sure !== false : row.probability >= threshold);

/** Whether the image is unlike the training images, so that neither label may be right; false where the model does not know them. */
export const isUnlike = (row) => row.unlike === true;

/** { label, probability } of an image that may have several, the most probable first; threshold null: as the server said. */
export const saidOf = (row, threshold) => (threshold === null ? row.labels : ranked(row).filter(({ probability }) => probability >= threshold));

/** The same of every label, said or not. */
export const ranked = (row) => Object.entries(row.probabilities).map(([label, probability]) => ({ label, probability })).sort((a, b) => b.probability - a.probability);

/** The objects that reach the threshold; null: all that the server sent. */
export const above = (row, threshold) => row.objects.filter((o) => threshold === null || o.score >= threshold);

/** [label, share] of the classes that are there, the largest first. */
export const covering = (row) => Object.entries(row.shares).filter(([, share]) => share > 0).sort((a, b) => b[1] - a[1]);

/** height, width of the upright image; null where the row does not say. */
export function sizeOf(row) {
  if (row?.size) return row.size;
  return row?.width && row?.height ? [row.height, row.width] : null;
}

/** The answer in a few words. */
export function summary(row, threshold) {
  if (hasLabels(row) && isUnlike(row)) return `unlike the training images (${row.label} ${percent(row.probability)})`;
  if (hasLabels(row)) return isSure(row, threshold) ? `${row.label} ${percent(row.probability)}` : `not sure (${row.label} ${percent(row.probability)})`;
  if (hasSeveral(row)) return saidOf(row, threshold).map(({ label, probability }) => `${label} ${percent(probability)}`).join(", ") || "no label";
  if (hasObjects(row)) {
    const counts = new Map();
    for (const { label } of above(row, threshold)) counts.set(label, (counts.get(label) ?? 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1]).map(([label, n]) => `${n} ${label}`).join(", ") || "nothing found";
  }
  if (hasMap(row)) return covering(row).slice(0, 3).map(([label, share]) => `${label} ${percent(share)}`).join(", ");
  return "no answer";
}

/** The row with what the threshold leaves of it, for a file. */
export function kept(row, threshold) {
  if (hasLabels(row)) return { ...row, sure: isSure(row, threshold) };
  if (hasSeveral(row)) return { ...row, labels: saidOf(row, threshold) };
  return hasObjects(row) ? { ...row, objects: above(row, threshold) } : row;
}
