/*
SPDX-FileCopyrightText: The hsmops.primus authors
SPDX-License-Identifier: GPL-3.0-or-later
*/
"use strict";

// A click on the head of a column, or Enter or Space on it, sorts the table by it; a second one the other way round.
const compare = new Intl.Collator("en", { numeric: true }).compare;

function sortBy(table, heads, column) {
  const head = heads[column];
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of heads) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const keys = new Map();
  for (const row of body.rows) {
    const cell = row.cells[column];
    keys.set(row, cell.dataset.sort ?? cell.textContent);
  }
  // Cells without a value stay at the end either way.
  const empty = (row) => ["", "–"].includes(keys.get(row));
  const rows = [...body.rows].sort(
    (a, b) => empty(a) - empty(b) || (down ? -1 : 1) * compare(keys.get(a), keys.get(b)),
  );
  body.append(...rows);
}

for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, heads, column));
    head.append(button);
  });
}

// The filter shows the rows that have all of its words. In quotation marks, words stand together.
const filter = document.getElementById("filter");
const shown = document.getElementById("shown");
const texts = new Map();
for (const body of document.querySelectorAll("tbody")) {
  for (const row of body.rows) {
    texts.set(row, [...row.cells].map((cell) => cell.textContent).join(" ").replace(/\s+/g, " ").toLowerCase());
  }
}

function applyFilter() {
  const words = (filter.value.toLowerCase().match(/"[^"]+"|[^\s"]+/g) ?? []).map((word) => word.replace(/"/g, ""));
  let count = 0;
  for (const [row, text] of texts) {
    row.hidden = !words.every((word) => text.includes(word));
    count += !row.hidden;
  }
  shown.value = words.length ? `${count} of ${texts.size} rows` : "";
}

filter.addEventListener("input", applyFilter);
document.getElementById("search").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("search").hidden = false;
for (const button of document.querySelectorAll("[data-filter]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    filter.value = `"${button.dataset.filter}"`;
    applyFilter();
    filter.focus();
    filter.scrollIntoView({ block: "start" });
  });
}
applyFilter(); // what a browser has kept in the box
