"use strict";

const turned = { ascending: "descending", descending: "ascending", none: "ascending" };

// A row of shared headings may stand above.
const headsOf = (table) => table.tHead.rows[table.tHead.rows.length - 1].cells;

function sortBy(table, head) {
  const direction = turned[head.getAttribute("aria-sort")];
  const place = head.cellIndex;
  const sign = direction === "ascending" ? 1 : -1;
  const isNumber = head.dataset.kind === "number";
  const value = (row) => row.cells[place].dataset.value;
  const compare = (a, b) => {
    // A missing figure stays at the end, whichever way the others go.
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (isNumber ? Number(a) - Number(b) : a.localeCompare(b));
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
  for (const other of headsOf(table)) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", direction);
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const head of headsOf(table)) {
    head.querySelector("button").addEventListener("click", () => sortBy(table, head));
  }
}

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const record = target && target.closest("details");
  if (record && !record.open) {
    record.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", reveal);
reveal();
