/**
 * Where two texts differ, word by word: a longest common subsequence of words.
 *
 * A word is a run of letters and digits, one Chinese character, one sign, or a run of spaces. What both
 * texts begin and end with is set aside first. The table takes num_a · num_b numbers, so texts whose
 * middles are longer than `MOST` allows are refused rather than let the page stand still.
 */

/** @typedef {{text: string, differs: boolean}} Run */

const WORD = /\s+|\p{Script=Han}|[\p{L}\p{M}\p{N}_'’]+?(?=\p{Script=Han}|[^\p{L}\p{M}\p{N}_'’]|$)|./gsu;
const MOST = 9_000_000; // cells: two middles of 3,000 words each, about 30 ms

/**
 * @param {string} text
 * @returns {string[]}
 */
export function wordsOf(text) {
  return text.match(WORD) ?? [];
}

/**
 * The runs of both texts, or null where they are too long.
 * @param {string} a
 * @param {string} b
 * @returns {[Run[], Run[]] | null}
 */
export function differences(a, b) {
  const [first, second] = [wordsOf(a), wordsOf(b)];
  let head = 0;
  while (head < first.length && head < second.length && first[head] === second[head]) head++;
  let tail = 0;
  const most = Math.min(first.length, second.length) - head;
  while (tail < most && first.at(-1 - tail) === second.at(-1 - tail)) tail++;
  const [keptA, keptB] = [new Set(outer(first, head, tail)), new Set(outer(second, head, tail))];
  const [midA, midB] = [first.length - tail - head, second.length - tail - head];
  if (midA * midB > MOST) return null;
  for (const [i, j] of common(first.slice(head, head + midA), second.slice(head, head + midB))) {
    keptA.add(head + i);
    keptB.add(head + j);
  }
  return [runs(first, keptA), runs(second, keptB)];
}

/**
 * Positions before the head and behind the tail.
 * @param {string[]} words
 * @param {number} head
 * @param {number} tail
 * @returns {number[]}
 */
function outer(words, head, tail) {
  return [...words.keys()].filter((i) => i < head || i >= words.length - tail);
}

/**
 * Pairs of positions of a longest common subsequence. length[i][j] is that of a from i and b from j.
 * @param {string[]} a
 * @param {string[]} b
 * @returns {[number, number][]}
 */
function common(a, b) {
  const width = b.length + 1;
  const length = new Uint16Array((a.length + 1) * width);
  const at = (/** @type {number} */ i, /** @type {number} */ j) => length[i * width + j] ?? 0;
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      length[i * width + j] =
        a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  /** @type {[number, number][]} */
  const pairs = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) pairs.push([i++, j++]);
    else if (at(i + 1, j) >= at(i, j + 1)) i++;
    else j++;
  }
  return pairs;
}

/**
 * Neighbouring words of one kind as one run. Spaces alone between two changed words belong to the change.
 * @param {string[]} words
 * @param {Set<number>} kept
 * @returns {Run[]}
 */
function runs(words, kept) {
  /** @type {Run[]} */
  const found = [];
  words.forEach((word, i) => {
    const bridge = /^[^\S\n]+$/.test(word) && !kept.has(i - 1) && !kept.has(i + 1);
    const differs = i > 0 && i < words.length - 1 && bridge ? true : !kept.has(i);
    const last = found.at(-1);
    if (last && last.differs === differs) last.text += word;
    else found.push({ text: word, differs });
  });
  return found;
}
