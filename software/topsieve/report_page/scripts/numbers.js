// Numbers and units as the reader sees them.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const DIGITS = 5;

// Whole numbers in full, others with five digits or all before the point; a table keeps the exact number in its title.
function shown(value) {
  if (value === null || value === undefined) {
    return "";
  }
  if (typeof value !== "number") {
    return String(value);
  }
  if (Number.isInteger(value) || Math.abs(value) >= 10 ** (DIGITS - 1)) {
    return WHOLE.format(value);
  }
  return String(Number(value.toPrecision(DIGITS)));
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

// A quantity's name with its unit, as a heading has it.
function titled(column) {
  return column.unit ? `${column.heading} (${column.unit})` : column.heading;
}

function words(name) {
  return name.replaceAll("_", " ").replace("topk", "top-k");
}
