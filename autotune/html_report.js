// What is pointed at, at once and beside the pointer; without script the browser shows the same titles.
const tip = document.getElementById("tip");
document.addEventListener("mouseover", (event) => {
  const title = event.target.querySelector && event.target.querySelector(":scope > title");
  if (title) { event.target.dataset.tip = title.textContent; title.remove(); }
  const text = event.target.dataset && event.target.dataset.tip;
  tip.style.display = text ? "block" : "none";
  if (text) tip.textContent = text;
});
document.addEventListener("mousemove", (event) => {
  const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 16 + tip.offsetHeight < window.innerHeight;
  tip.style.left = left + "px";
  tip.style.top = (below ? event.clientY + 16 : event.clientY - tip.offsetHeight - 12) + "px";
});
