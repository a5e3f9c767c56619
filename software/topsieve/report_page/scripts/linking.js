// What is hovered or focused in one place is marked in all others that show the same thing, and told in a tip.

const tip = document.getElementById("tip");

function mark(kind, key, on) {
  for (const node of document.querySelectorAll(`[data-kind="${kind}"]`)) {
    if (node.dataset.key === key) {
      node.classList.toggle("linked", on);
    }
  }
}

function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, window.innerWidth - box.width - 4))}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 14, window.innerHeight - box.height - 4))}px`;
}

function hideTip() {
  tip.hidden = true;
}

// Tell `text` while the pointer or the focus is on `node`.
function explain(node, text) {
  node.setAttribute("aria-label", text);
  node.addEventListener("pointermove", (event) => showTip(text, event.clientX, event.clientY));
  node.addEventListener("pointerleave", hideTip);
  // A listener of focus would make a drawn part take the focus from what it is part of.
  if (!node.hasAttribute("tabindex")) {
    return;
  }
  node.addEventListener("focus", () => {
    const box = node.getBoundingClientRect();
    showTip(text, box.right, box.bottom);
  });
  node.addEventListener("blur", hideTip);
}

// Mark everything of this `kind` and `key` while the pointer or the focus is on `node`.
function link(node, kind, key) {
  node.dataset.kind = kind;
  node.dataset.key = key;
  for (const [event, on] of [["pointerenter", true], ["focusin", true], ["pointerleave", false], ["focusout", false]]) {
    node.addEventListener(event, () => mark(kind, key, on));
  }
}

window.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    hideTip();
  }
});
