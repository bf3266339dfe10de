// All batches of a rollout beside each other, however many: where it is, and where it went wrong, at one glance.

import { h } from "./dom.js";
import { batchParts, batchSentence, openBatch } from "./rollout-words.js";

const FEWEST = 3; // fewer are better read in the table
const MOST = 200; // more are too thin to be seen

/** A column for each batch; whoever shows it has the numbers beside it. `now` in milliseconds. */
export function strip(rollout, now) {
  const { batches } = rollout;
  if (batches.length < FEWEST || batches.length > MOST) return null;
  const open = openBatch(rollout, now);
  return h(
    "div",
    {
      class: "strip",
      role: "img",
      "aria-label": `Progress of ${batches.length} batches; the page of the rollout has a table of them`,
    },
    batches.map((batch, i) =>
      h(
        "div",
        {
          class: ["strip-batch", i > open && "is-closed"],
          title: `Batch ${batch.batch}: ${batchSentence(batch)}`,
        },
        batchParts(batch)
          .filter((part) => part.n > 0)
          .map((part) =>
            h("span", { class: `fill-${part.key}`, "height%": ((part.n / batch.nodes) * 100).toFixed(2) }),
          ),
      ),
    ),
  );
}
