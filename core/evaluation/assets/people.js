// A key presses its button, once.
let pressed = false;

document.addEventListener("submit", (event) => {
  if (pressed) event.preventDefault();
  pressed = true;
});

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = document.querySelector(`button[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (button) {
    event.preventDefault();
    button.click();
  }
});

// Reload a page that the browser kept for its back button.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
