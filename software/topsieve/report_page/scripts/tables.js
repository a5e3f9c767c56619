// Tables that sort: a heading is a button, and its column says in which order it is.

function compare(left, right) {
  return typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right), "en", { numeric: true });
}

// Rows in the order of a column; equal rows stay as they were, and empty cells come last either way.
function sorted(rows, place, descending) {
  return [...rows].sort((a, b) => {
    const [left, right] = [a.values[place], b.values[place]];
    if (left === null || right === null) {
      return (left === null) - (right === null);
    }
    return descending ? compare(right, left) : compare(left, right);
  });
}

function cells(columns, values) {
  return values.map((value, place) => {
    if (place === 0) {
      return element("th", { scope: "row" }, shown(value));
    }
    const cell = element("td", columns[place].numeric ? { class: "number" } : {}, shown(value));
    if (typeof value === "number" && !Number.isInteger(value)) {
      cell.title = String(value);
    }
    return cell;
  });
}

// The table `spec`; with `kind`, its rows are linked to other places by their first cells.
function sortable(spec, kind) {
  const body = element("tbody");
  const rows = spec.rows.map((values) => ({ values, node: element("tr", {}, ...cells(spec.columns, values)) }));
  body.append(...rows.map((row) => row.node));
  const headings = spec.columns.map((column, place) => {
    const button = element("button", { type: "button" }, titled(column));
    const heading = element("th", { scope: "col", "aria-sort": "none", ...(column.numeric ? { class: "number" } : {}) }, button);
    if (column.label) {
      heading.title = column.label;
    }
    button.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      body.append(...sorted(rows, place, descending).map((row) => row.node));
    });
    return heading;
  });
  const foot = spec.foot.map((values) => element("tr", {}, ...cells(spec.columns, values)));
  const table = element("table", { id: `table-${spec.id}` }, element("caption", {}, spec.caption), element("thead", {}, element("tr", {}, ...headings)), body);
  if (foot.length) {
    table.append(element("tfoot", {}, ...foot));
  }
  if (kind) {
    rows.forEach((row) => link(row.node, kind, String(row.values[0])));
  }
  return element("div", { class: "table", tabindex: "0", role: "region", "aria-label": spec.caption }, table);
}

// Quantities with their values and units, in one order.
function facts(rows) {
  const line = ([name, value, unit]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", { class: "wide" }, shown(value)), element("td", {}, unit));
  const head = ["quantity", "value", "unit"].map((name) => element("th", { scope: "col" }, name));
  return element("div", {}, element("table", { id: "table-summary" }, element("caption", {}, "What was run"), element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows.map(line))));
}
